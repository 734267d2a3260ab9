"""Floats to few-bit codes: grids, rounding rules, and which tensor gets which."""
