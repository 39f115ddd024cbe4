"""How fast phosphene is and how much memory it takes: `python -m benchmarks`; see docs/speed.md."""

from phosphene.runtime.allocator import large_pages

large_pages()  # as the command line does, before PyTorch is there
