"""Errors, units, settings, files, clock, ranks and console: what every room stands on."""
