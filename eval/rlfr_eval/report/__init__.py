"""Tables, Markdown reports and HTML pages of evaluation runs."""
