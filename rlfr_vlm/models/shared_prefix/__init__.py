"""Run the prompt of a GRPO group once in a forward pass, and its responses behind it.

Row-wise, n responses to a prompt are n rows of prompt and response. Shared, they are one row: the prompt, then a block
for each response. layout.py holds the index maths, prompts.py finds rows with equal prompts, attention.py lets each
block attend to its prompt and to itself, support.py says which policies can do it.
"""
