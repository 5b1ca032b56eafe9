"""Applications built on a trained model."""
