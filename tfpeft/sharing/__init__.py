"""Parameter sharing: one backbone and, for every task, a head and an adapter. Row 5."""
