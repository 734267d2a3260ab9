"""The transformer: configuration, layers, forward pass, cache and parameter roles."""
