"""What runs a network's computation and keeps it within memory.

Nothing is imported here: the command line reads amounts of memory before PyTorch is there.
"""
