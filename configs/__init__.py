"""Shipped configurations; `base` documents every default."""
