"""Quantisation-aware training, weight clustering, and which layers lose most. Row 4."""
