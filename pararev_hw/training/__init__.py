"""Training: data sets, the training step, and loops over it."""
