"""The model under evaluation: serving, context length, images, and the loop that collects answers."""
