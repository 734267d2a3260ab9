"""Configuration of the text room: which corpus, how it is split, which tokenizer.

Flows in from a recipe's [text] table; read by the sources, the tokenizers and `prepare`.
"""

from dataclasses import dataclass

from parbyte.base.settings import require, setting

TOKENIZER_KINDS = ("bytes", "sentencepiece", "words", "official")
DOCUMENT_RULES = ("auto", "file", "paragraphs")
MAX_VOCAB_SIZE = 65_536


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """What is read and how it becomes tokens: the [text] table."""

    corpus: str = setting(
        "kjv",
        doc="'kjv', or the path of a file or folder: .txt .jsonl .jsonl.zst .zst, or .bin shards",
    )
    documents: str = setting(
        "auto",
        choices=DOCUMENT_RULES,
        doc="how a plain-text file falls into documents (auto: it is one, but the only file falls "
        "into paragraphs); the KJV's are chapters, JSONL's lines",
    )
    heldout: str = setting(
        "",
        doc="path of a separate held-out corpus; empty: the last part of the corpus",
    )
    heldout_fraction: float = setting(
        0.10,
        low=0.0,
        high=0.9,
        doc="share of the corpus's bytes held out, cut at a document boundary",
    )
    dev_fraction: float = setting(
        0.02,
        low=0.0,
        high=0.5,
        doc="share of the rest kept for development figures; the slice before the held-out part",
    )
    dev_in_training: bool = setting(
        False,
        doc="train on the development slice too (final runs; development figures are optimistic)",
    )
    tokenizer: str = setting("words", choices=TOKENIZER_KINDS, doc="kind of tokenizer")
    vocab_size: int = setting(
        4096,
        low=64,
        high=MAX_VOCAB_SIZE,
        doc="ids in all, special and byte tokens included (bytes: always 257)",
    )
    tokenizer_file: str = setting(
        "",
        doc="an existing SentencePiece model (sentencepiece, official) instead of training one",
    )
    shard_tokens: int = setting(
        100_000_000,
        low=1,
        high=2**31 - 1,
        doc="tokens per shard file",
    )

    def __post_init__(self) -> None:
        require(
            self.tokenizer != "official" or bool(self.tokenizer_file),
            "tokenizer_file",
            got=self.tokenizer_file,
            want="the path of a SentencePiece model when 'tokenizer' is 'official'",
        )
