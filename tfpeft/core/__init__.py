"""The ground: what every technique needs, and nothing of any technique. Row 1."""
