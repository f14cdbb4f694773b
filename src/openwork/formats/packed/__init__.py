"""How the weights of each sparsity pattern are stored; one file is one format. Free of torch."""
