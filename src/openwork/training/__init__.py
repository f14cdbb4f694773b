"""Training: the fit loop, the shaper that holds constraints through it, checkpoints, exact resume, and the whole
way."""
