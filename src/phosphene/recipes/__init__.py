"""Recipes: a file each, which declares it; `base.py` says what a declaration is."""
