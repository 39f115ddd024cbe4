"""Films: what moves in them, and where a shot ends and another begins."""
