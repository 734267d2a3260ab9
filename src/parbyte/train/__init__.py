"""Move a model's weights within a budget: optimizer, schedule, averaging, checkpoints, loop."""
