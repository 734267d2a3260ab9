"""parbyte trains, packs, scores and proves the best language model that fits in N bytes."""

__version__ = "0.1.0"
