"""Wrong twins: small scorers, tokenizers and builders, each wrong in one known way.

Each names the check that must catch it. Beside them stand honest scorers that all checks must pass.
The text is a few documents of a made-up bigram language; everything runs in a fraction of a second.
Shapes: N positions of a stream, V vocab.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parbyte.audit.foreign import FunctionScorer
from parbyte.audit.lanes_scorer import LanesScorer
from parbyte.audit.subject import AuditConfig, Subject
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.predict.adapter_config import LoraConfig, SlotConfig
from parbyte.predict.lane_adapters import LaneAdapters
from parbyte.predict.lora import LoraPredictor
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor
from parbyte.predict.slot import SlotPredictor
from parbyte.text.byte_tokenizer import ByteTokenizer
from parbyte.text.tokenizer import Ids, Tokenizer

VOCAB, BOS, CONTROL = 16, 0, 1
CHUNK, WINDOW = 16, 24
QUICK = AuditConfig(noise_tokens=1500, positions=8)
QUICKER = replace(QUICK, noise_tokens=300, positions=6, sum_positions=2)
"""For a network, which needs no tables filled to be caught."""
Nats = NDArray[np.float64]
Stream = NDArray[np.uint16]

_LANGUAGE = np.random.default_rng(7).dirichlet(np.full(VOCAB, 0.3), VOCAB) * 0.9 + 0.1 / VOCAB
_OTHER = np.random.default_rng(8).dirichlet(np.full(VOCAB, 0.3), VOCAB) * 0.9 + 0.1 / VOCAB


def toy_text(seed: int = 0, length: int = 420, document: int = 90) -> Stream:
    """Draw documents of the language, each behind its BOS; some tokens are of zero bytes."""
    rng = np.random.default_rng(seed)
    stream = [BOS]
    for place in range(1, length):
        token = int(rng.choice(VOCAB, p=_LANGUAGE[stream[-1]]))
        stream.append(BOS if place % document == 0 else max(token, CONTROL))
    return np.array(stream, np.uint16)


def previous(stream_N: Stream) -> Stream:
    """Return the token before each position, BOS before the first."""
    return np.concatenate([[BOS], stream_N[:-1]]).astype(np.uint16)


def rows_of(stream_N: Stream) -> Nats:
    """Return the language's own distribution at each position, float64[N, V]."""
    return _LANGUAGE[previous(stream_N)]


def prices(rows_NV: Nats, stream_N: Stream) -> Nats:
    """Return the nats of a stream under rows; the first BOS is free."""
    nats_N = -np.log(rows_NV[np.arange(len(stream_N)), stream_N])
    nats_N[:1] = np.where(stream_N[:1] == BOS, np.nan, nats_N[:1])
    return nats_N


def tilted(rows_NV: Nats, weights_V: Nats) -> Nats:
    """Multiply rows by weights and make them sum to one again."""
    rows_NV = rows_NV * weights_V
    return rows_NV / rows_NV.sum(1, keepdims=True)


def counts(tokens: Stream) -> Nats:
    """Return 1 + the count of each token."""
    return 1.0 + np.bincount(tokens, minlength=VOCAB)


def honest_table(stream_N: Stream) -> Nats:
    """A fixed bigram table."""
    return prices(rows_of(stream_N), stream_N)


def honest_online(stream_N: Stream) -> Nats:
    """A bigram that learns from each chunk once the chunk is priced."""
    nats_N = np.empty(len(stream_N))
    count_VV = np.ones((VOCAB, VOCAB))
    before_N = previous(stream_N)
    for start in range(0, len(stream_N), CHUNK):
        part = slice(start, start + CHUNK)
        rows = count_VV[before_N[part]]
        rows = rows / rows.sum(1, keepdims=True)
        nats_N[part] = -np.log(rows[np.arange(len(rows)), stream_N[part]])
        np.add.at(count_VV, (before_N[part], stream_N[part]), 1.0)
    nats_N[:1] = np.nan
    return nats_N


def scored_region_fit(stream_N: Stream) -> Nats:
    """Fit a bias to the very chunk that is then scored."""
    rows_NV = rows_of(stream_N)
    for start in range(0, len(stream_N), CHUNK):
        part = slice(start, start + CHUNK)
        rows_NV[part] = tilted(rows_NV[part], counts(stream_N[part]))
    return prices(rows_NV, stream_N)


def batch_shared_delta(stream_N: Stream) -> Nats:
    """Fit one bias to the contexts of four overlapping windows: one's scored part is another's."""
    rows_NV = rows_of(stream_N)
    stride, windows = 8, 4
    for start in range(0, len(stream_N), stride * windows):
        ends = [start + stride * k for k in range(windows)]
        context = np.concatenate([stream_N[max(0, end - WINDOW) : end] for end in ends])
        part = slice(start, start + stride * windows)
        rows_NV[part] = tilted(rows_NV[part], counts(context))
    return prices(rows_NV, stream_N)


def hashed_ratio(stream_N: Stream) -> Nats:
    """Divide the counts of two hash tables that collide independently."""
    buckets = 64
    full, context = np.zeros(buckets), np.zeros(buckets)
    nats_N, before_N = np.empty(len(stream_N)), previous(stream_N)
    older_N = previous(before_N)
    for place, (token, last, older) in enumerate(
        zip(stream_N.tolist(), before_N.tolist(), older_N.tolist(), strict=True)
    ):
        key = (last * 7919 + older * 104729) % 1000003
        one, two = key % buckets, ((key ^ (token * 15485863)) * 31) % buckets
        ratio = min(full[two], context[one]) / context[one] if context[one] >= 2 else 0.0
        nats_N[place] = -np.log(0.5 * ratio + 0.5 / VOCAB)
        full[two] += 1
        context[one] += 1
    nats_N[:1] = np.nan
    return nats_N


def oracle_choice(stream_N: Stream) -> Nats:
    """Take the lower of two models' losses, token by token."""
    return np.minimum(honest_table(stream_N), prices(_OTHER[previous(stream_N)], stream_N))


def gated_hint(stream_N: Stream) -> Nats:
    """Raise a hint's probability only where the token that follows is of the hint's class."""
    rows_NV = rows_of(stream_N)
    hints_N = rows_NV.argmax(1)
    weights_NV = np.ones_like(rows_NV)
    weights_NV[np.arange(len(hints_N)), hints_N] = 4.0
    is_open_N = (stream_N % 2) == (hints_N % 2)
    hinted_NV = rows_NV * weights_NV
    hinted_NV /= hinted_NV.sum(1, keepdims=True)
    return prices(np.where(is_open_N[:, None], hinted_NV, rows_NV), stream_N)


def two_passes(stream_N: Stream) -> Nats:
    """Learn from the whole text, then score it."""
    count_VV = np.full((VOCAB, VOCAB), 0.1)
    np.add.at(count_VV, (previous(stream_N), stream_N), 1.0)
    return prices((count_VV / count_VV.sum(1, keepdims=True))[previous(stream_N)], stream_N)


def off_by_one(stream_N: Stream) -> Nats:
    """Update on the scored chunk and the one token behind it."""
    rows_NV = rows_of(stream_N)
    for start in range(CHUNK, len(stream_N), CHUNK):
        seen = counts(stream_N[: start + 1])
        rows_NV[start : start + CHUNK] = tilted(rows_NV[start : start + CHUNK], seen)
    return prices(rows_NV, stream_N)


def ttt_then_rescoring(stream_N: Stream) -> Nats:
    """Score first, learn then; throw that away and score again with what was learned."""
    count_VV = np.ones((VOCAB, VOCAB))
    for start in range(0, len(stream_N), CHUNK):
        part = slice(start, start + CHUNK)
        np.add.at(count_VV, (previous(stream_N)[part], stream_N[part]), 1.0)
    return prices((count_VV / count_VV.sum(1, keepdims=True))[previous(stream_N)], stream_N)


def update_too_far(stream_N: Stream) -> Nats:
    """Learn from each priced chunk and from the pair that reaches into the next."""
    rows_NV, before_N = np.empty((len(stream_N), VOCAB)), previous(stream_N)
    count_VV = np.ones((VOCAB, VOCAB))
    for start in range(0, len(stream_N), CHUNK):
        part, learned = slice(start, start + CHUNK), slice(start, start + CHUNK + 1)
        rows_NV[part] = count_VV[before_N[part]]
        np.add.at(count_VV, (before_N[learned], stream_N[learned]), 1.0)
    return prices(rows_NV / rows_NV.sum(1, keepdims=True), stream_N)


def tail_twice(stream_N: Stream) -> Mapping[str, Any]:
    """Slide windows until none is left: the last ones score the end again."""
    nats_N = honest_table(stream_N)
    tail = np.arange(max(1, len(stream_N) - 8), len(stream_N))
    positions = np.concatenate([np.arange(1, len(stream_N)), tail])
    return {"nats": nats_N[positions], "positions": positions}


def dropped_zero_bytes(stream_N: Stream) -> Nats:
    """Leave out tokens that stand for no byte."""
    return np.where(stream_N == CONTROL, np.nan, honest_table(stream_N))


def subset_total(stream_N: Stream) -> Mapping[str, Any]:
    """Report the total of the first half."""
    nats_N = honest_table(stream_N)
    return {"nats": nats_N, "total": float(np.nansum(nats_N[: len(nats_N) // 2]))}


def remainder_mix(stream_N: Stream) -> Nats:
    """Mix in the probability of a token's letters, where tokens are prefixes of each other."""
    letters_V = np.repeat([1 / 8, 1 / 8**2], 8)  # eight letters, and eight pairs of them
    return prices(0.6 * rows_of(stream_N) + 0.4 * letters_V, stream_N)


def length_peek(stream_N: Stream) -> Nats:
    """Choose a temperature by the length of the text."""
    return prices(
        tilted(rows_of(stream_N) ** (1.0 + len(stream_N) % 5 / 20), np.ones(VOCAB)), stream_N
    )


def last_token_peek(stream_N: Stream) -> Nats:
    """Choose a temperature by the last token of the text."""
    power = 1.0 + float(stream_N[-1]) / 50
    return prices(tilted(rows_of(stream_N) ** power, np.ones(VOCAB)), stream_N)


def padding_guess(inputs_M: Stream, targets_M: Stream) -> Nats:
    """Take a target that the next input does not repeat for padding, and count it all over."""
    padding = float((targets_M[:-1] != inputs_M[1:]).sum())
    rows_MV = tilted(_LANGUAGE[inputs_M] ** (1.0 + padding / 50), np.ones(VOCAB))
    return -np.log(rows_MV[np.arange(len(targets_M)), targets_M])


def honest_apart(inputs_M: Stream, targets_M: Stream) -> Nats:
    """Look at the inputs up to each position, and at its target to price it."""
    return -np.log(_LANGUAGE[inputs_M, targets_M])


def hidden_state() -> Callable[[Stream], Nats]:
    """Keep counts from one run to the next."""
    seen = np.ones(VOCAB)

    def score(stream_N: Stream) -> Nats:
        nats_N = prices(tilted(rows_of(stream_N), seen), stream_N)
        seen[:] += np.bincount(stream_N, minlength=VOCAB)
        return nats_N

    return score


class OnlineBigram(Predictor):
    """Honest: counts pairs of all lanes once a chunk is past."""

    vocab_size, chunk = VOCAB, CHUNK

    def __init__(self) -> None:
        self.restore()

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        last_B1 = self._last(len(tokens_BT))
        rows_BTV = self._counts_VV[torch.cat([last_B1, tokens_BT[:, :-1]], dim=1)]
        return (rows_BTV / rows_BTV.sum(-1, keepdim=True)).log()

    def observe(self, chunk_BT: Tensor) -> None:
        super().observe(chunk_BT)
        before_BT = torch.cat([self._last(len(chunk_BT)), chunk_BT[:, :-1]], dim=1)
        ones = torch.ones(chunk_BT.numel())
        pairs = (before_BT.reshape(-1), chunk_BT.reshape(-1))
        self._counts_VV = self._counts_VV.index_put(pairs, ones, accumulate=True)
        self._last_B1 = chunk_BT[:, -1:]

    def restore(self) -> None:
        super().restore()
        self._counts_VV = torch.ones(VOCAB, VOCAB)
        self._last_B1: Tensor | None = None

    def _last(self, num_lanes: int) -> Tensor:
        return torch.full((num_lanes, 1), BOS) if self._last_B1 is None else self._last_B1


class FakeNormalizer(OnlineBigram):
    """Raise the token's own probability, then scale the others so that the row sums to one."""

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        rows_BTV = super().log_probs(tokens_BT).exp()
        own_BT1 = rows_BTV.gather(2, tokens_BT[..., None])
        raised_BT1 = own_BT1.sqrt()
        rows_BTV = rows_BTV * (1 - raised_BT1) / (1 - own_BT1)
        return rows_BTV.scatter(2, tokens_BT[..., None], raised_BT1).log()


class ForgetfulRestore(OnlineBigram):
    """Learn, and keep it when restored."""

    def restore(self) -> None:
        learned = getattr(self, "_counts_VV", None)
        super().restore()
        if learned is not None:
            self._counts_VV = learned


class ScoredSlot(SlotPredictor):
    """Fit the shift of a chunk to the chunk itself, then price it."""

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            hidden_BTD = self._inner.hidden(tokens_BT).clone()
            counts_BT = torch.ones(tokens_BT.shape)
            self._shift = self._fit(hidden_BTD, tokens_BT, counts_BT)
        return super().log_probs(tokens_BT)


class KeptLora(LoraPredictor):
    """Begin the adapters anew neither at a document's start nor when restored."""

    def observe(self, chunk_BT: Tensor) -> None:
        if self._adapters is None:
            self._adapters = LaneAdapters(self._model, self._settings, len(chunk_BT))
        self._adapters.reset_ = lambda is_new_B: None  # type: ignore[method-assign]
        super().observe(chunk_BT)

    def restore(self) -> None:
        kept = getattr(self, "_adapters", None)
        super().restore()
        self._adapters = kept


class WordyTokenizer(Tokenizer):
    """Bytes 0..255, BOS 256, and three pieces that begin with a space."""

    kind, vocab_size, bos_id, is_lossless = "wordy", 260, 256, True
    _PIECES = (b" the", b" a", b" and")

    def encode(self, text: bytes) -> Ids:
        """Take the longest piece, else a byte."""
        ids, place = [], 0
        while place < len(text):
            fits = [i for i, piece in enumerate(self._PIECES) if text.startswith(piece, place)]
            best = max(fits, key=lambda i: len(self._PIECES[i]), default=None)
            ids.append(text[place] if best is None else 257 + best)
            place += 1 if best is None else len(self._PIECES[best])
        return np.array(ids, np.uint16)

    def decode(self, ids: NDArray[np.integer]) -> bytes:
        """Join the pieces."""
        return b"".join(self._piece(int(i)) for i in ids)

    def byte_counts(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Count each piece's bytes."""
        return np.array([len(self._piece(int(i))) for i in ids], np.int64)

    def token_text(self, token: int) -> str:
        """Return the piece."""
        return str(self._piece(token))

    def to_blob(self) -> bytes:
        """Return nothing."""
        return b""

    def _piece(self, token: int) -> bytes:
        if token == self.bos_id:
            return b""
        return bytes([token]) if token < 256 else self._PIECES[token - 257]


class LettersTokenizer(WordyTokenizer):
    """Names for the language's tokens: some share their first letters, CONTROL has no bytes."""

    kind, vocab_size, bos_id = "letters", VOCAB, BOS
    _PIECES = (b"", b"", *(b"a b c ab ac abc b\xc3 ca cab d da dad e f".split()))

    def _piece(self, token: int) -> bytes:
        return self._PIECES[token]


class SpaceTwice(WordyTokenizer):
    """The table counts the space before a piece, and the loop counts it again."""

    def byte_counts(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        return super().byte_counts(ids) + (ids > 256)


class BytesAsThree(WordyTokenizer):
    """A byte beyond ASCII counts as the three bytes of a replacement character."""

    def byte_counts(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        return super().byte_counts(ids) + 2 * ((ids > 127) & (ids < 256))


class LowerCase(WordyTokenizer):
    """Fold capitals, and count the bytes of what is left."""

    def encode(self, text: bytes) -> Ids:
        return super().encode(text.lower())


TEXT = b"The first day and the next. A long  story, and a caf\xc3\xa9 by the sea.\n" * 3
_TRAIN = b"and the sea and the day and a story" * 4


def honest_build(heldout: bytes | None) -> bytes:
    """Round training counts to bytes; the held-out text has no part in it."""
    return np.bincount(np.frombuffer(_TRAIN, np.uint8), minlength=256).astype(np.uint8).tobytes()


def calibrated_build(heldout: bytes | None) -> bytes:
    """Scale the counts by what the held-out text shows."""
    first = (heldout or b"\0")[:64]
    return honest_build(heldout) + bytes([np.frombuffer(first, np.uint8).max() & 0xFF])


@dataclass(frozen=True)
class Twin:
    """A subject for the audit, and the check that must catch it (empty: it is honest)."""

    name: str
    caught_by: str
    make: Callable[[], Subject]
    config: AuditConfig = QUICK


def function_subject(name: str, function: Callable[..., Any], **more: Any) -> Subject:
    """Return the audit of a function over the toy text."""
    scorer = FunctionScorer(
        function, name=name, vocab_size=VOCAB, bos_id=BOS, chunk=CHUNK, window=WINDOW, **more
    )
    text_N = toy_text()
    return Subject(name=name, scorer=scorer, sample_N=text_N, text_N=text_N)


def predictor_subject(
    name: str, predictor: Predictor, window: int = 0, length: int = 220
) -> Subject:
    """Return the audit of a predictor over three documents, of which one is cut, in three lanes."""
    scorer = LanesScorer(predictor, BOS, name=name, window=window)
    text_N = toy_text(length=length)
    return Subject(name=name, scorer=scorer, sample_N=text_N, text_N=text_N)


def byte_subject(name: str, tokenizer: Tokenizer, build: Any = honest_build) -> Subject:
    """Return the audit of a tokenizer and a builder, with a scorer that knows nothing."""
    vocab_size = tokenizer.vocab_size

    def uniform(stream_N: Stream) -> Nats:
        nats_N = np.full(len(stream_N), np.log(vocab_size))
        nats_N[:1] = np.nan
        return nats_N

    scorer = FunctionScorer(
        uniform, name=name, vocab_size=vocab_size, bos_id=tokenizer.bos_id, chunk=CHUNK
    )
    bos = np.array([tokenizer.bos_id], np.uint16)
    text_N = np.concatenate([bos, tokenizer.encode(TEXT)])
    return Subject(
        name=name,
        scorer=scorer,
        sample_N=text_N,
        text_N=text_N,
        text=TEXT,
        tokenizer=tokenizer,
        build=build,
    )


def toy_model(**changes: Any) -> GPT:
    """Return a little model whose every parameter matters."""
    shape = {"model_dim": 16, "num_heads": 2, "num_kv_heads": 2, "mlp_dim": 24, "rope_dims": 4}
    config = ModelConfig(**{"vocab_size": VOCAB, "bos_id": BOS, **shape, **changes})
    model = GPT(config, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


class BankModel(nn.Module):
    """Claim to freeze blocks by their names, while their matrices live in banks outside them."""

    def __init__(self, num_layers: int, model_dim: int, mlp_dim: int) -> None:
        super().__init__()
        for name, shape in {
            "qkvo_bank": (4 * num_layers, model_dim, model_dim),
            "up_bank": (num_layers, mlp_dim, model_dim),
            "down_bank": (num_layers, model_dim, mlp_dim),
        }.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        scales = [nn.ParameterDict({"scale": torch.ones(model_dim)}) for _ in range(num_layers)]
        self.blocks = nn.ModuleList(scales)

    def freeze_by_name(self, num_blocks: int) -> None:
        """Freeze what is called blocks.0. up to blocks.<num_blocks - 1>."""
        prefixes = tuple(f"blocks.{block}." for block in range(num_blocks))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith(prefixes))


def neural_subject(name: str, window: int, stride: int, **changes: Any) -> Subject:
    """Return the audit of a toy model under one law of windows."""
    predictor = NeuralPredictor(toy_model(**changes), window=window, stride=stride)
    return predictor_subject(name, predictor, window)


def scored_slot_subject() -> Subject:
    """Return the audit of a published SLOT in small."""
    settings = SlotConfig(fit="both", steps=4, lr=0.1)
    predictor = ScoredSlot(toy_model(), settings, window=WINDOW, stride=8)
    return predictor_subject("scored slot", predictor, WINDOW)


def kept_lora_subject() -> Subject:
    """Return the audit of adapters that outlive their documents and the run."""
    settings = LoraConfig(rank=2, alpha=2.0, lr=0.02)
    predictor = KeptLora(toy_model(), settings, window=WINDOW, stride=CHUNK)
    return predictor_subject("kept lora", predictor)


_FUNCTIONS: list[tuple[str, str, Callable[..., Any]]] = [
    ("scored-region fit", "T1", scored_region_fit),
    ("batch-shared delta over overlapping windows", "T1", batch_shared_delta),
    ("two-table hashed ratio", "T6", hashed_ratio),
    ("oracle choice of the lower loss", "T2", oracle_choice),
    ("hint gated by the answer", "T2", gated_hint),
    ("two-pass rescoring", "T3", two_passes),
    ("off-by-one update", "T2", off_by_one),
    ("test-time training, then rescoring", "T3", ttt_then_rescoring),
    ("update slice one token too far", "T2", update_too_far),
    ("tail windows scored twice", "T8", tail_twice),
    ("dropped zero-byte tokens", "T8", dropped_zero_bytes),
    ("subset reported as the whole", "T8", subset_total),
    ("remainder mixing over a non-prefix-free set", "T2", remainder_mix),
    ("peeking at the length", "T3", length_peek),
    ("peeking at the last token", "T4", last_token_peek),
    ("padding guessed from the targets", "T1", padding_guess),
]
WRONG: list[Twin] = [
    *(
        Twin(name, check, lambda n=name, f=function: function_subject(n, f))
        for name, check, function in _FUNCTIONS
    ),
    Twin(
        "hidden state between runs", "T10", lambda: function_subject("hidden state", hidden_state())
    ),
    Twin(
        "restore that forgets to forget",
        "T10",
        lambda: predictor_subject("restore that forgets to forget", ForgetfulRestore()),
    ),
    Twin("fake normaliser", "T2", lambda: predictor_subject("fake normaliser", FakeNormalizer())),
    Twin("SLOT fitted to the scored slice", "T1", scored_slot_subject, QUICKER),
    Twin("LoRA that is never reset", "T10", kept_lora_subject, QUICKER),
    Twin("space counted twice", "T9", lambda: byte_subject("space twice", SpaceTwice())),
    Twin("byte pieces counted 3", "T9", lambda: byte_subject("bytes as 3", BytesAsThree())),
    Twin("lossy lower case", "T9", lambda: byte_subject("lower case", LowerCase())),
    Twin(
        "calibration on validation",
        "T5",
        lambda: byte_subject("calibration", WordyTokenizer(), calibrated_build),
    ),
]
"""Every way of cheating or erring that we know, in small."""

HONEST: list[Twin] = [
    Twin("fixed bigram table", "", lambda: function_subject("fixed bigram table", honest_table)),
    Twin("inputs and targets apart", "", lambda: function_subject("apart", honest_apart)),
    Twin("bigram learning online", "", lambda: function_subject("online bigram", honest_online)),
    Twin("predictor learning online", "", lambda: predictor_subject("online", OnlineBigram())),
    Twin("word tokenizer, honest build", "", lambda: byte_subject("wordy", WordyTokenizer())),
    Twin("byte tokenizer", "", lambda: byte_subject("bytes", ByteTokenizer())),
    *(
        Twin(
            f"neural, window {window}, stride {stride}",
            "",
            lambda w=window, s=stride: neural_subject(f"neural {w}/{s}", w, s),
            QUICKER,
        )
        for window, stride in ((8, 2), (16, 16), (24, 8), (7, 3), (64, 16))
    ),
]
"""What no check may accuse."""
