"""What `recommend` measures, tries and says, for each goal. Row 7."""
