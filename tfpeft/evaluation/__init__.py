"""Quality and cost of models and of exported files, in the same figures. Row 4."""
