"""Codes, tokenizer and settings to one file under a byte cap, and back."""
