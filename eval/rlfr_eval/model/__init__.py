"""The measured model: client, server, addresses, context length, answering."""
