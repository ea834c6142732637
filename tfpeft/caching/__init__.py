"""What a frozen model computes, computed once and stored. Row 4."""
