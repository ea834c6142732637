"""Adapters: small trainable parts beside the frozen layers of a model. Row 3."""
