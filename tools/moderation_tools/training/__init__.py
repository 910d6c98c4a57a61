"""Making checkpoints: the recipe of the bundled demonstration checkpoint."""
