"""What `search` runs: budgets, costs, candidates, oracles, trials and results. Row 7."""
