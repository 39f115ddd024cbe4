"""Recipes: one public function and one settings model each."""
