"""Train a lossless SentencePiece BPE model on a stream of documents."""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import sentencepiece

from parbyte.base.errors import DataError
from parbyte.text.sentencepiece_model import SentencePieceModel, parse_model

MAX_SAMPLE_BYTES = 32 * 2**20
# The trainer silently skips lines over its limit (4,192 bytes as shipped): it gets shorter ones.
_LINE_BYTES = 4_000
_NEVER_PIECES = re.compile("[\udc80-\udcff\u2581\0]+")


@dataclass(frozen=True)
class SentencePieceTraining:
    """A model, the bytes that went by, and those the trainer was given."""

    model: SentencePieceModel
    num_bytes: int
    num_trained_bytes: int


def train_sentencepiece(documents: Iterable[bytes], vocab_size: int) -> SentencePieceTraining:
    """Train BPE: identity normalisation, byte fallback, single digits, blanks kept.

    A corpus over MAX_SAMPLE_BYTES is thinned evenly; a short one gives fewer ids than asked for.
    Raises DataError if there is no text, or too few ids for its characters.
    """
    sample, num_bytes = _sample(documents)
    output = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(sample),
            model_writer=output,
            model_type="bpe",
            vocab_size=vocab_size,
            normalization_rule_name="identity",
            byte_fallback=True,
            split_digits=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            character_coverage=0.9999,
            hard_vocab_limit=False,
            max_sentence_length=2 * _LINE_BYTES,
            unk_id=0,
            bos_id=1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "no reason given"
        raise DataError(
            f"no SentencePiece model of 'text.vocab_size' {vocab_size:,} can be trained on "
            f"{num_bytes:,} bytes: {reason[:200]}"
        ) from None
    model = parse_model(output.getvalue())
    return SentencePieceTraining(model, num_bytes, sum(map(len, sample)))


def _sample(documents: Iterable[bytes]) -> tuple[list[bytes], int]:
    """Keep every document, or every 2nd, 4th, ... of their stretches once they are too many."""
    kept: list[bytes] = []
    kept_bytes, num_bytes, stride, index = 0, 0, 1, 0
    for document in documents:
        num_bytes += len(document)
        for start in range(0, len(document), _SAMPLE_STRETCH):
            if index % stride == 0:
                kept.append(document[start : start + _SAMPLE_STRETCH])
                kept_bytes += len(kept[-1])
            index += 1
            if kept_bytes > MAX_SAMPLE_BYTES:
                kept = kept[::2]
                stride *= 2
                kept_bytes = sum(map(len, kept))
    return kept, num_bytes


_SAMPLE_STRETCH = 2**18


def _lines(sample: Iterable[bytes]) -> Iterator[str]:
    for document in sample:
        text = document.decode("utf-8", "surrogateescape")
        for stretch in _NEVER_PIECES.split(text):
            yield from _cut(stretch)


def _cut(text: str) -> Iterator[str]:
    """Cut before spaces into lines whose UTF-8 stays under the trainer's limit."""
    start = 0
    while start < len(text):
        # A character has 4 bytes at most.
        end = min(start + _LINE_BYTES // 4 * (4 if text.isascii() else 1), len(text))
        space = text.rfind(" ", start + 1, end)
        if end < len(text) and space > 0:
            end = space
        yield text[start:end]
        start = end
