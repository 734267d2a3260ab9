"""Text to bits and back: one coding loop for both directions around a range coder."""
