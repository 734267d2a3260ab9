"""Bytes to token ids and back: corpora, tokenizers, shards and batches."""
