"""A finished run as one page to look at, and the compressors it is compared with."""
