"""What the stages and scripts share: flags, run folders, models, datasets, texts, errors."""
