"""Comparisons that a command runs for real, published rows and our own; one file is one comparison."""
