"""Every claim over one toy network as a subject for the audit, and the check that must convict it.

Sixteen tokens, two small layers, windows of 16 without the scripts' error at the tail, so that what
is convicted is the claim itself. Beside them stand the same scores made honest.
Shapes: N tokens of the stream, V vocab.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parbyte.audit.foreign import FunctionScorer
from parbyte.audit.subject import AuditConfig, Subject
from parbyte.claims.calibration import OnText, rounded_on_text
from parbyte.claims.claimed import Claimed
from parbyte.claims.counts import Dirichlet, dirichlet, oracle, packed_tables, two_passes
from parbyte.claims.grams import exact_keys
from parbyte.claims.hashed import FULL_C, Mixer, hashed_mixer
from parbyte.claims.hints import Experts, WordClasses, agreement_experts
from parbyte.claims.logit_slot import CASCADE, LogitSlot, logit_slot
from parbyte.claims.ppm import BytePpm, Spelling, remainder_mixing, uniform_spread
from parbyte.claims.slot import (
    SampleSlot,
    SharedSlot,
    per_sample_slot,
    shared_context_slot,
    standard_slot,
)
from parbyte.claims.ttt import (
    BeforeQuantisation,
    InPlace,
    rescored,
    train_before_packing,
    train_in_place,
)
from parbyte.claims.windows import Windows, sliding
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT

VOCAB, BOS = 16, 0
WINDOWS = Windows(window=16, stride=4, batch=4, repeats_tail=False)
SCRIPT = replace(WINDOWS, repeats_tail=True)
SINGLE = replace(WINDOWS, batch=1)
MIXER = Mixer(max_order=5, buckets=64, min_tokens=20)
LENGTH = 110
QUICK = AuditConfig(noise_tokens=1500, positions=8, sum_positions=3)
GENTLE = AuditConfig(noise_tokens=200, positions=6, sum_positions=2)
Stream = NDArray[np.uint16]
Score = Callable[[Tensor], Claimed]


@dataclass(frozen=True)
class Specimen:
    """A claim, what it breaks in the words of docs/claims.md, and the check that must see it."""

    name: str
    source: str
    breaks: str
    caught_by: str
    make: Callable[[], Subject]


def toy_model() -> GPT:
    """Return a little model whose every parameter matters."""
    config = ModelConfig(
        vocab_size=VOCAB,
        bos_id=BOS,
        num_layers=2,
        model_dim=16,
        num_heads=2,
        num_kv_heads=2,
        mlp_dim=24,
        rope_dims=4,
        softcap=30.0,
    )
    model = GPT(config, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


def toy_text(length: int = LENGTH) -> Stream:
    """Return three documents that repeat each other with noise."""
    rng = np.random.default_rng(5)
    motif = rng.integers(1, VOCAB, 23)
    text = np.tile(motif, length // 23 + 1)[: length - 1]
    is_noise = rng.random(length - 1) < 0.3
    text[is_noise] = rng.integers(1, VOCAB, int(is_noise.sum()))
    text[[44, 79]] = BOS  # the audit looks at borders of documents
    return np.concatenate([[BOS], text]).astype(np.uint16)


def subject(name: str, score: Score) -> Subject:
    """Return a claim as the audit sees it: a function from tokens to prices."""

    def answer(stream: Stream) -> object:
        return score(torch.from_numpy(stream.astype(np.int64))).answer()

    scorer = FunctionScorer(
        answer,
        name=name,
        vocab_size=VOCAB,
        bos_id=BOS,
        chunk=WINDOWS.stride * WINDOWS.batch,
        window=WINDOWS.window,
    )
    text_N = toy_text()
    return Subject(name=name, scorer=scorer, sample_N=text_N, text_N=text_N)


MODEL = toy_model()
TRAIN_N = torch.from_numpy(toy_text(900).astype(np.int64)).flip(0)
CLASSES = WordClasses(
    begins_word_V=torch.arange(VOCAB) % 3 == 1, is_boundary_V=torch.arange(VOCAB) == BOS
)
PIECES = [b"", *(bytes([97 + v]) for v in range(7)), *(bytes([97 + v, 98 + v]) for v in range(8))]
FIRST_BYTE = torch.tensor([piece[0] if piece else -1 for piece in PIECES])
EXPERTS = Experts(length=3, words=2, thresholds=(0.4, 0.3, 0.3), chunk=16)
TTT = InPlace(chunk=32, rows=2, lr=0.02, frozen_blocks=1, second_pass=0.3)
BEFORE = BeforeQuantisation(epochs=3, lr=0.02, rows=4)


def base(stream_N: Tensor, windows: Windows = WINDOWS) -> Claimed:
    """Return the model's own prices."""
    return sliding(MODEL, stream_N, windows)


def spelled(stream_N: Tensor) -> Spelling:
    """Return the bytes of a stream of toy pieces."""
    pieces = [PIECES[token] for token in stream_N.tolist()]
    return Spelling(
        bytes_Y=torch.tensor(list(b"".join(pieces)), dtype=torch.int64),
        counts_N=torch.tensor([len(piece) for piece in pieces], dtype=torch.int64),
    )


def mixer(settings: Mixer) -> Score:
    """Return the hashed mixer over the model's prices."""
    return lambda stream_N: hashed_mixer(base(stream_N), stream_N, WINDOWS, VOCAB, settings)


def posterior(stream_N: Tensor, is_exact: bool) -> Claimed:
    """Return the hierarchical posterior with counts that collide, or exact ones."""
    tables = replace(MIXER, counts_once=True, min_tokens=0)
    settings = Dirichlet(concentrations=(5.0, 5.0, 2.0, 2.0), tables=tables)
    keys = exact_keys(stream_N, 5) if is_exact else None
    return dirichlet(base(stream_N), stream_N, WINDOWS, VOCAB, settings, keys=keys)


def score_first(stream_N: Tensor) -> Claimed:
    """Return the ledger of in-place training, whose rates do not depend on the text's length."""
    steady = replace(TTT, floor=1.0, second_pass=0.0)
    return train_in_place(copy.deepcopy(MODEL), stream_N, WINDOWS, steady)


def trained(stream_N: Tensor) -> GPT:
    """Train on the text before packing, if there is a text."""
    return train_before_packing(MODEL, stream_N, WINDOWS, BEFORE) if len(stream_N) else MODEL


def calibrated(stream_N: Tensor) -> GPT:
    """Round by the text's own Hessians, or to nearest if there is no text."""
    return rounded_on_text(MODEL, stream_N, WINDOWS, OnText())


def artifact_subject(name: str, make: Callable[[Tensor], GPT]) -> Subject:
    """Return the audit of an artifact that was made with the held-out text at hand."""

    def build(heldout: bytes | None) -> bytes:
        tokens = torch.tensor(list(heldout or b""), dtype=torch.int64) % VOCAB
        return b"".join(p.detach().numpy().tobytes() for p in make(tokens).parameters())

    made = subject(name, lambda stream_N: sliding(make(stream_N), stream_N, WINDOWS))
    made.text, made.build = b"A text that no artifact should know of. " * 3, build
    return made


def _specimen(name: str, source: str, breaks: str, caught_by: str, score: Score) -> Specimen:
    return Specimen(name, source, breaks, caught_by, lambda: subject(name, score))


SPECIMENS: list[Specimen] = [
    _specimen("sliding windows, tail repeated", "card 2", "C4", "T8", lambda s: base(s, SCRIPT)),
    _specimen(
        "per-sample SLOT",
        "card 4; #1430 #1329 #1229",
        "C1 C3",
        "T1",
        lambda s: per_sample_slot(MODEL, s, WINDOWS, SampleSlot()),
    ),
    _specimen(
        "standard SLOT",
        "card 5; #1084 #1176",
        "C1 C3",
        "T1",
        lambda s: standard_slot(MODEL, s, WINDOWS, SharedSlot(lr=0.05)),
    ),
    _specimen(
        "context SLOT shared by a batch",
        "card 6; #1306 #1333",
        "C1 C3",
        "T1",
        lambda s: shared_context_slot(MODEL, s, WINDOWS, SharedSlot(lr=0.05)),
    ),
    _specimen(
        "L-BFGS SLOT shared by a batch",
        "card 7; #1350",
        "C1 C3",
        "T1",
        lambda s: logit_slot(MODEL, s, WINDOWS, LogitSlot(focal=8)),
    ),
    _specimen(
        "cascaded L-BFGS SLOT",
        "card 8; #1372",
        "C1 C3",
        "T1",
        lambda s: logit_slot(MODEL, s, WINDOWS, replace(CASCADE, focal=8)),
    ),
    _specimen(
        "rescoring after in-place training",
        "card 10; #1430 #991",
        "C3 C4",
        "T3",
        lambda s: rescored(MODEL, s, WINDOWS, TTT) if len(s) > 33 else base(s),
    ),
    _specimen(
        "training before packing",
        "card 11; #1350",
        "C3 C4",
        "T3",
        lambda s: sliding(trained(s), s, WINDOWS),
    ),
    Specimen(
        "training before packing, the artifact",
        "card 11; #1350",
        "C1",
        "T5",
        lambda: artifact_subject("training before packing, the artifact", trained),
    ),
    _specimen(
        "rounding calibrated on the text",
        "card 18; #1430 #728",
        "C3",
        "T3",
        lambda s: sliding(calibrated(s), s, WINDOWS),
    ),
    Specimen(
        "rounding calibrated on the text, the artifact",
        "card 18; #1430 #728",
        "C1",
        "T5",
        lambda: artifact_subject("rounding calibrated on the text, the artifact", calibrated),
    ),
    _specimen("two-table hashed mixer", "card 12; #1430 #779", "C2", "T6", mixer(MIXER)),
    _specimen(
        "hashed mixer, order by the answer",
        "card 12b; #1605",
        "C1 C2",
        "T2",
        mixer(replace(FULL_C, max_order=6, buckets=64, min_tokens=0, counts_once=True)),
    ),
    _specimen(
        "two-pass rescoring",
        "card 12b; #846 #959",
        "C1 C2 C3 C4",
        "T3",
        lambda s: two_passes(base(s), s, WINDOWS, VOCAB, MIXER),
    ),
    _specimen(
        "oracle gate",
        "card 12b; #659",
        "C1 C2",
        "T2",
        lambda s: oracle(base(s), posterior(s, is_exact=True)),
    ),
    _specimen(
        "posterior over collided counts",
        "card 13; #900 #948",
        "C2",
        "T6",
        lambda s: posterior(s, is_exact=False),
    ),
    _specimen(
        "packed tables",
        "card 14; #962 #1056",
        "C2",
        "T2",
        lambda s: packed_tables(
            base(s), s, WINDOWS, VOCAB, TRAIN_N, replace(MIXER, counts_once=True, buckets=32)
        ),
    ),
    _specimen(
        "experts that ask for the answer",
        "card 16; #1145 #1302",
        "C1 C2",
        "T2",
        lambda s: agreement_experts(MODEL, s, WINDOWS, CLASSES, EXPERTS),
    ),
    _specimen(
        "byte PPM, price spread evenly",
        "card 17; #1850 #2083",
        "C2",
        "T2",
        lambda s: uniform_spread(base(s), spelled(s), BytePpm(order=2)),
    ),
    _specimen(
        "byte PPM, remainder mixed",
        "card 17; #2039",
        "C2",
        "T2",
        lambda s: remainder_mixing(MODEL, s, WINDOWS, spelled(s), FIRST_BYTE, BytePpm(order=2)),
    ),
]
"""What the audit must convict."""

HONEST: list[Specimen] = [
    _specimen("sliding windows", "card 2", "", "", base),
    _specimen(
        "context SLOT, one window at a time",
        "card 6",
        "",
        "",
        lambda s: shared_context_slot(MODEL, s, SINGLE, SharedSlot(lr=0.05, steps=2)),
    ),
    _specimen(
        "score-first training",
        "card 10; #549",
        "",
        "",
        score_first,
    ),
    _specimen(
        "posterior over exact counts", "card 13", "", "", lambda s: posterior(s, is_exact=True)
    ),
    _specimen(
        "experts that always speak",
        "card 16",
        "",
        "",
        lambda s: agreement_experts(
            MODEL, s, WINDOWS, CLASSES, replace(EXPERTS, asks_answer=False)
        ),
    ),
]
"""The same with the fault taken out: what no check may accuse."""
