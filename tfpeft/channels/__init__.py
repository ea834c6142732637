"""Channel pruning: what depends on a channel, which ones matter least, and their removal. Row 6."""
