"""Quantisation-aware training, weight clustering, and which layers stay in float32. Row 4."""
