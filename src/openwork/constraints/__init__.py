"""Sets that weights may lie in; one file is one set."""
