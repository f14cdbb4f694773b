"""Which layers, which constraint, which solver, which schedule; YAML to validated objects and back."""
