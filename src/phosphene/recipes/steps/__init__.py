"""The loops of recipes, apart from their declarations, which need no torch."""
