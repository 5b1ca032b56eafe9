"""Evaluation: metrics and the protocol behind `mscaflax evaluate`."""
