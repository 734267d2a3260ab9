"""Numerical kernels: attention, Newton-Schulz, loss; plain torch that compiles well."""
