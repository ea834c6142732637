"""Tables, plots and pages: figures in; text, Markdown, PNG and HTML out. Row 2."""
