"""What a network learns from: the labels, and the network that it was before it was pruned; one file is one loss."""
