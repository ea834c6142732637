"""Spaces of student architectures for `search`. Row 7."""
