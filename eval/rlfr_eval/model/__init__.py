"""The model under evaluation: client, server, addresses, context length, and the loop that collects answers."""
