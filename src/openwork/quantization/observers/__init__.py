"""How large a magnitude the grid of an activation reaches to: one way of choosing it a file."""
