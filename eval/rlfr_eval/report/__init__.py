"""Tables, Markdown and pages of evaluation runs."""
