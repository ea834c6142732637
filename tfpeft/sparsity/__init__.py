"""Zeros: pruning and sparse training, as optimizers that wrap an optimizer. Row 3."""
