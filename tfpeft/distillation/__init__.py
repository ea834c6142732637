"""Knowledge distillation: a student learns from labels and from a teacher. Row 5."""
