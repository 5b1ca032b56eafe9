"""Training: losses, state, the train step, checkpoints and the one loop."""
