"""How fast phosphene is and how much memory it takes: `python -m benchmarks`; see docs/speed.md."""
