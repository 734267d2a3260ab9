"""Make the tokenizer that a recipe asks for, from the training documents or a model file."""

from collections.abc import Iterable
from pathlib import Path

from parbyte.base.errors import ArtifactError, DataError
from parbyte.base.log import Console
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.config import TextConfig
from parbyte.text.sentencepiece_model import SentencePieceModel, parse_model
from parbyte.text.tokenizer import Tokenizer
from parbyte.text.word_tokenizer import WordTokenizer
from parbyte.text.word_training import choose_vocabulary, count_runs


def train_tokenizer(config: TextConfig, documents: Iterable[bytes], console: Console) -> Tokenizer:
    """Build the tokenizer of a recipe; `documents` are the training documents and nothing else.

    Says how many bytes were seen. Raises DataError for an unusable file, an empty corpus or a
    vocabulary that does not suit the text.
    """
    if config.tokenizer == "bytes":
        return ByteTokenizer()
    if config.tokenizer == "words":
        return _train_words(config, documents, console)
    # The library is loaded only for the kinds that need it.
    from parbyte.text.official import OfficialTokenizer
    from parbyte.text.sentencepiece_tokenizer import SentencePieceTokenizer

    if config.tokenizer == "official":
        return OfficialTokenizer(_read_model(config.tokenizer_file))
    if config.tokenizer_file:
        return SentencePieceTokenizer(_read_model(config.tokenizer_file))
    return _train_sentencepiece(config, documents, console)


def _train_words(config: TextConfig, documents: Iterable[bytes], console: Console) -> Tokenizer:
    counts = count_runs(documents)
    _refuse_empty(counts.num_bytes)
    tokenizer = WordTokenizer(choose_vocabulary(counts, config.vocab_size))
    console.say(
        f"tokenizer: words, {tokenizer.vocab_size:,} ids "
        f"({len(tokenizer.vocabulary.words):,} words, {len(tokenizer.vocabulary.tails):,} tails, "
        f"{len(tokenizer.vocabulary.separators):,} separators), "
        f"from all {counts.num_bytes:,} bytes of training text"
    )
    return tokenizer


def _train_sentencepiece(
    config: TextConfig, documents: Iterable[bytes], console: Console
) -> Tokenizer:
    from parbyte.text.sentencepiece_tokenizer import SentencePieceTokenizer
    from parbyte.text.sentencepiece_training import train_sentencepiece

    training = train_sentencepiece(documents, config.vocab_size)
    tokenizer = SentencePieceTokenizer(training.model)
    console.say(
        f"tokenizer: sentencepiece, {tokenizer.vocab_size:,} ids, trained on "
        f"{training.num_trained_bytes:,} of {training.num_bytes:,} bytes of training text"
    )
    return tokenizer


def _refuse_empty(num_bytes: int) -> None:
    if num_bytes == 0:
        raise DataError("the training text is empty: there is nothing to build a tokenizer from")


def _read_model(name: str) -> SentencePieceModel:
    try:
        return parse_model(Path(name).read_bytes())
    except OSError as error:
        raise DataError(f"cannot read 'text.tokenizer_file' '{name}': {error.strerror}") from None
    except ArtifactError as error:
        raise DataError(f"'text.tokenizer_file' '{name}': {error}") from None
