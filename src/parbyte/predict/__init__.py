"""Predictors: causal, normalised distributions over the next token, given the past alone."""
