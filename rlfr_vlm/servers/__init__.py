"""OpenAI-compatible servers: ask them, start and stop them, and tell which model they serve."""
