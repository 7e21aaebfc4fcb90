"""One run and many: from a recipe to a stored row, resumed bit for bit."""
