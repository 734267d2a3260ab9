"""A byte model's rows are those of its definition: dictionaries, float64, autograd for gradients.

The reference counts everything anew at every position, and walks over no trie: it asks for each
prefix of each token. Shapes: B lanes, T positions, V vocab.
"""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import GivenRows, Uniform

from parbyte.base.errors import RecipeError, ResourceError
from parbyte.base.log import Console
from parbyte.base.settings import read_table
from parbyte.codec.drive import drive
from parbyte.codec.rangecoder import Decoder, Encoder
from parbyte.kernels.portable.byte_mixing import say_
from parbyte.kernels.portable.byte_trie import build_trie
from parbyte.predict.build import build_row_stage
from parbyte.predict.bytewise import BytesPredictor
from parbyte.predict.config import PredictConfig
from parbyte.predict.expert_config import BytesConfig
from parbyte.predict.predictor import Predictor
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.tokenizer import Flags, Ids, Tokenizer
from parbyte.text.word_tokenizer import WordTokenizer
from parbyte.text.word_vocabulary import WordVocabulary

SMALL, BOS = 1 << 20, 0


class Pieces(Tokenizer):
    """A vocabulary of given pieces; the last `num_words` of them imply spaces between them."""

    kind, bos_id, is_lossless = "pieces", BOS, False

    def __init__(self, pieces: tuple[bytes, ...], num_words: int = 0) -> None:
        self.pieces, self.num_words = pieces, num_words
        self.vocab_size = len(pieces)

    def encode(self, text: bytes) -> Ids:
        return np.array([self.pieces.index(text[i : i + 1]) for i in range(len(text))], np.uint16)

    def decode(self, ids: np.ndarray) -> bytes:
        return b"".join(self.pieces[int(i)] for i in ids)

    def byte_counts(self, ids: np.ndarray) -> np.ndarray:
        return np.array([len(self.pieces[int(i)]) for i in ids], np.int64)

    def token_text(self, token: int) -> str:
        return repr(self.pieces[token])

    def to_blob(self) -> bytes:
        return b"\0".join(self.pieces)

    def implied_spaces(self) -> tuple[Flags, Flags]:
        is_word_V = np.arange(self.vocab_size) >= self.vocab_size - self.num_words
        return is_word_V, is_word_V


NESTED = Pieces((b"", b"a", b"ab", b"abc", b"b", b"bc", b"ab", b" ", b""))
SPACED = Pieces((b"", b",", b", ", b" ", b"s", b"a", b"as", b"sea", b"the", b"then"), num_words=5)


def some_rows(vocab: int, length: int, lanes: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return (2 * torch.randn(lanes, length, vocab, generator=generator)).log_softmax(-1)


def some_tokens(vocab: int, length: int, lanes: int) -> Tensor:
    """Return lanes that repeat themselves, with a document's end; the last lane ends early."""
    rng = np.random.default_rng(3)
    text = np.tile(rng.integers(1, vocab, 9), (lanes, length // 9 + 1))[:, :length]
    noise = rng.random(text.shape) < 0.2
    text[noise] = rng.integers(1, vocab, int(noise.sum()))
    text[0, length // 2] = BOS
    text[-1, length - 6 :] = BOS
    return torch.from_numpy(text)


class Reference:
    """Counts of bytes by context, in dictionaries."""

    def __init__(self, tokenizer: Tokenizer, config: BytesConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        self.pieces = [tokenizer.token_bytes(v) for v in range(tokenizer.vocab_size)]
        self.asks, self.takes = tokenizer.implied_spaces()

    def spell(self, token: int, last: int) -> bytes:
        is_implied = self.takes[token] and self.asks[last]
        return (b" " if is_implied else b"") + self.pieces[token]

    def count(self, lanes: list[list[int]]) -> None:
        """Count the bytes of every lane's documents, each in as many contexts as it was new in."""
        seen: list[tuple[bytes, int]] = []
        self.documents = [b"" for _ in lanes]
        for b, lane in enumerate(lanes):
            for last, token in pairwise(lane):
                if token == self.tokenizer.bos_id:
                    self.documents[b] = b""
                for byte in self.spell(token, last):
                    begin = max(0, len(self.documents[b]) - self.config.order)
                    seen.append((self.documents[b][begin:], byte))
                    self.documents[b] += bytes([byte])
        self.counts = {}
        for context, byte in seen:
            for start in range(len(context) + 1):
                follower = self.counts.setdefault(context[start:], Counter())
                follower[byte] += 1
                if follower[byte] > 1:
                    break

    def prob(self, before: bytes, byte: int) -> float:
        """Return P(byte | before), from the shortest context to the longest."""
        prob, d = 1 / 256, self.config.discount
        for length in range(min(len(before), self.config.order) + 1):
            found = self.counts.get(before[len(before) - length :])
            if found is None:
                break
            own = max(found[byte] - d, 0.0)
            prob = (own + d * len(found) * prob) / found.total()
        return prob

    def longest(self, before: bytes) -> int:
        lengths = range(min(len(before), self.config.order) + 1)
        return max((n for n in lengths if before[len(before) - n :] in self.counts), default=-1)

    def row(self, b: int, last: int, below_V: np.ndarray) -> np.ndarray:
        """Return log q."""
        weights = [self.weight(b, last, v) if self.pieces[v] else 0.0 for v in range(len(below_V))]
        is_silent = np.array([not piece for piece in self.pieces])
        rest = 1 - np.exp(below_V[is_silent]).sum()
        with np.errstate(divide="ignore"):
            spelled_V = np.log(rest * np.array(weights) / np.sum(weights))
        return np.where(is_silent, below_V, spelled_V)

    def weight(self, b: int, last: int, v: int) -> float:
        """Return P(bytes of v), and that no longer token of its kind goes on."""
        before, weight = self.documents[b], 1.0
        for byte in self.spell(v, last):
            weight *= self.prob(before, byte)
            before += bytes([byte])
        own = self.pieces[v]
        kind = [p for w, p in enumerate(self.pieces) if p and self.takes[w] == self.takes[v]]
        further = {p[len(own)] for p in kind if p.startswith(own) and len(p) > len(own)}
        end = 1 - sum(self.prob(before, byte) for byte in further)
        return weight * end / kind.count(own)


def reference_rows(
    tokenizer: Tokenizer, config: BytesConfig, rows_BTV: Tensor, tokens_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Return log r and log q, float64[B, T, V], by the definition."""
    mind = Reference(tokenizer, config)
    lanes = [[BOS] for _ in tokens_BT]
    weights = torch.zeros(12 + config.order + 3, 2, dtype=torch.float64)
    weights[0] = torch.tensor([1.0, config.start_weight])
    squares = torch.ones_like(weights)
    mixed, spelled = (torch.zeros(rows_BTV.shape, dtype=torch.float64) for _ in range(2))
    for t in range(tokens_BT.shape[1]):
        mind.count(lanes)
        slopes = torch.zeros_like(weights)
        for b, lane in enumerate(lanes):
            below_V, token = rows_BTV[b, t].double(), int(tokens_BT[b, t])
            spelled[b, t] = torch.from_numpy(mind.row(b, lane[-1], below_V.numpy()))
            entropy = -float((below_V.exp() * below_V).sum())
            picked = [0, 1 + min(int(2 * entropy), 11), 14 + mind.longest(mind.documents[b])]
            free = weights.clone().requires_grad_()
            inputs_2V = torch.stack([below_V, spelled[b, t]])
            log_r_V = (free[picked].sum(0) @ inputs_2V).log_softmax(0)
            mixed[b, t] = log_r_V.detach()
            if token != BOS or lane[-1] != BOS:
                log_r_V[token].backward()
                assert free.grad is not None
                slopes += free.grad
        for lane, token in zip(lanes, tokens_BT[:, t].tolist(), strict=True):
            lane.append(token)
        squares += slopes**2
        weights += config.rate * slopes / squares.sqrt()
    return mixed, spelled


def walk(predictor: Predictor, tokens_BT: Tensor) -> Tensor:
    predictor.restore()
    parts = []
    for part_BT in tokens_BT.split(predictor.chunk, dim=1):
        parts.append(predictor.log_probs(part_BT))
        predictor.observe(part_BT)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("tokenizer", [NESTED, SPACED], ids=["nested", "spaced"])
@pytest.mark.parametrize("order", [0, 1, 4])
def test_rows_are_those_of_the_definition(tokenizer: Pieces, order: int) -> None:
    config = BytesConfig(order=order, threshold=0.0, memory=SMALL, rate=0.1, discount=0.6)
    rows_BTV = some_rows(tokenizer.vocab_size, 40, 2)
    tokens_BT = some_tokens(tokenizer.vocab_size, 40, 2)
    predictor = BytesPredictor(GivenRows(rows_BTV, 7), config, tokenizer)
    found_BTV = walk(predictor, tokens_BT).double()
    expected_BTV, _ = reference_rows(tokenizer, config, rows_BTV, tokens_BT)
    torch.testing.assert_close(found_BTV, expected_BTV, atol=2e-5, rtol=0)


WORDS = WordTokenizer(
    WordVocabulary(
        words=(b"and", b"sea", b"the", b"then"),
        tails=(b"n", b"s"),
        separators=(b" ", b", ", b"."),
    )
)


@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), NESTED, SPACED, WORDS])
def test_what_the_bytes_say_sums_to_one(tokenizer: Tokenizer, threshold: float) -> None:
    vocab, chunk = tokenizer.vocab_size, 8
    rows_BTV = some_rows(vocab, 64, 2)
    config = BytesConfig(threshold=threshold, memory=SMALL)
    predictor = BytesPredictor(GivenRows(rows_BTV, chunk), config, tokenizer)
    tokens_BT = some_tokens(vocab, 64, 2)
    for start in range(0, 64, chunk):
        part_BT = tokens_BT[:, start : start + chunk]
        mixed_BTV = predictor.log_probs(part_BT)
        sums = mixed_BTV.double().exp().sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)
        for b in range(2):
            inputs_2V = np.zeros((2, vocab), np.float32)
            say_(predictor._speller, b, rows_BTV[b, start].numpy(), inputs_2V)
            assert abs(np.exp(inputs_2V[1].astype(np.float64)).sum() - 1) < 1e-6
        predictor.observe(part_BT)


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=30), st.data())
@settings(max_examples=60, deadline=None)
def test_every_token_has_its_place_in_the_trie(pieces: list[bytes], data: st.DataObject) -> None:
    takes = np.array(data.draw(st.lists(st.booleans(), min_size=30, max_size=30)))[: len(pieces)]
    trie = build_trie(pieces, takes)
    found: dict[int, tuple[bytes, bool]] = {}
    for node in range(len(trie.byte_N)):
        path, at = b"", node
        while trie.byte_N[at] >= 0:
            path, at = bytes([trie.byte_N[at]]) + path, int(trie.parent_N[at])
        start = trie.start_N[node]
        for token in trie.tokens_V[start : start + trie.num_here_N[node]]:
            assert int(token) not in found
            found[int(token)] = path, bool(at)
    found |= {int(token): (b"", bool(takes[token])) for token in trie.silent}
    assert found == {v: (piece, bool(takes[v])) for v, piece in enumerate(pieces)}


def test_the_bytes_of_ids_are_those_of_the_text() -> None:
    text = b"the sea, and then the seas."
    ids = WORDS.encode(text)
    asks, takes = WORDS.implied_spaces()
    spelled = b""
    for last, token in zip([WORDS.bos_id, *ids], ids, strict=False):
        spelled += b" " * bool(asks[last] and takes[token]) + WORDS.token_bytes(int(token))
    assert spelled == text


def test_a_text_is_coded_and_decoded() -> None:
    lengths, vocab = [60, 41], SPACED.vocab_size
    tokens_BT = some_tokens(vocab, 61, 2).numpy().astype(np.uint16)
    known = [tokens_BT[b, :length] for b, length in enumerate(lengths)]
    known = [np.where(lane == BOS, 1, lane).astype(np.uint16) for lane in known]
    predictor = BytesPredictor(GivenRows(some_rows(vocab, 70, 2), 7), BytesConfig(), SPACED)
    console, encoder = Console(quiet=True), Encoder(known)
    driven = drive(predictor, encoder, lengths, BOS, console)
    decoder = Decoder(encoder.to_bytes(), vocab)
    restored = drive(predictor, decoder, lengths, BOS, console)
    assert restored.nats == driven.nats
    for lane, back in zip(known, restored.tokens, strict=True):
        assert np.array_equal(lane, back)


def test_memory_is_kept_and_what_is_new_is_learned() -> None:
    memory, lanes, vocab, chunk = 1 << 18, 2, 257, 50
    rng = np.random.default_rng(0)
    tokens_BT = torch.from_numpy(rng.integers(1, 200, (lanes, 1500)))
    tokens_BT[:, -chunk:] = tokens_BT[:, -2 * chunk : -chunk]
    below = Uniform(vocab, lanes, chunk)
    config = BytesConfig(memory=memory, order=3, start_weight=1.0, rate=0.0)
    predictor, nats = BytesPredictor(below, config, ByteTokenizer()), []
    for part_BT in tokens_BT.split(chunk, dim=1):
        nats.append(-float(predictor.log_probs(part_BT).gather(2, part_BT[..., None]).mean()))
        predictor.observe(part_BT)
        assert predictor.count_bytes() <= memory
    assert nats[-2] > 5.0
    assert nats[-1] < 2.0


def test_a_memory_too_small_for_the_lanes_is_named() -> None:
    below = Uniform(257, 4, 20_000)
    predictor = BytesPredictor(below, BytesConfig(memory=1 << 16), ByteTokenizer())
    with pytest.raises(ResourceError, match="memory"):
        predictor.log_probs(torch.ones((4, 1), dtype=torch.int64))


@pytest.mark.parametrize(
    ("key", "value"), [("order", 17), ("discount", 1.0), ("threshold", 0.2), ("rate", -1.0)]
)
def test_a_bad_key_is_named(key: str, value: float) -> None:
    table = {"engine": "portable", "stack": [{"kind": "bytes", key: value}]}
    with pytest.raises(RecipeError, match=key):
        read_table(PredictConfig, table, where="recipe", section="predict")


def test_a_stage_of_bytes_is_built_with_the_tokenizer() -> None:
    below = GivenRows(some_rows(SPACED.vocab_size, 7, 1), 7)
    stage = build_row_stage(BytesConfig(memory=SMALL), below, BOS, SPACED)
    assert isinstance(stage, BytesPredictor)
