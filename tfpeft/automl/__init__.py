"""Search under a budget: techniques, their settings, and students; recommendations. Row 7."""
