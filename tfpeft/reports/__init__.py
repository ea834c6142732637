"""Tables and plots: rows of figures in; text, Markdown and PNG out. Row 2."""
