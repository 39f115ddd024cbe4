"""How a network is run fast and in little memory: graphs, programs, bands, pooling.

Knows modules and tensors; no `Network`, and no objective.
"""
