"""Per-layer sparsity from a budget: what each layer loses and costs at each ratio, and who picks."""
