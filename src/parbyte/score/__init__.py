"""What a text costs under a predictor: nats per document, and what kind of number that is."""
