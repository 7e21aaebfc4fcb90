"""Studies of heads on stored features: how far they come without a gradient, and from where."""
