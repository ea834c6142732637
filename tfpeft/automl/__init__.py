"""Choice of techniques, search under a budget, and student architectures. Row 7."""
