"""What a network computes in integers of a few bits, simulated in PyTorch's floats."""
