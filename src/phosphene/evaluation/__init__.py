"""Score and gradient of a picture: whole or in tiles, as memory allows."""

from phosphene.evaluation.whole import leaking_relus, shared, whole

__all__ = ["leaking_relus", "shared", "whole"]
