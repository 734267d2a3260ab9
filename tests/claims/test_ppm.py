"""Byte-level PPM and its two mixtures against slow references."""

from collections import Counter, defaultdict

import pytest
import torch
from torch import Tensor, nn

from parbyte.claims.ppm import BytePpm, Spelling, ppm_probs, remainder_mixing, uniform_spread
from parbyte.claims.windows import Windows, sliding

PIECES = [b"", b"a", b"b", b"ab", b"ba", b"aab", b"c", b"ca", b"abc", b"bb", b"cc"]
WINDOWS = Windows(window=16, stride=4, batch=5)
SETTINGS = BytePpm(order=3, threshold=0.6)
FIRST_BYTE = torch.tensor([piece[0] if piece else -1 for piece in PIECES])


def spelled(stream: Tensor) -> Spelling:
    text = b"".join(PIECES[v] for v in stream.tolist())
    counts = torch.tensor([len(PIECES[v]) for v in stream.tolist()])
    return Spelling(bytes_Y=torch.tensor(list(text)), counts_N=counts)


def reference_ppm(text: bytes, settings: BytePpm) -> list[tuple[float, bool]]:
    seen: dict = defaultdict(Counter)
    found = []
    for place, byte in enumerate(text):
        price, escape, sure, matched = None, 1.0, False, False
        for length in range(settings.order, -1, -1):
            if length > place:
                continue
            counts = seen[text[place - length : place]]
            total = sum(counts.values())
            if not total:
                continue
            if not matched:
                matched, sure = True, max(counts.values()) / total > settings.threshold
            if counts[byte] > 0:
                price = escape * (2 * counts[byte] - 1) / (2 * total)
                break
            escape *= len([n for n in counts.values() if n]) / (2 * total)
        found.append((escape / 256 if price is None else price, sure))
        for length in range(min(settings.order, place) + 1):
            seen[text[place - length : place]][byte] += 1
    return found


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_ppm_equals_a_walk_with_dictionaries(stream: Tensor, order: int) -> None:
    settings = BytePpm(order=order, threshold=0.6)
    text = bytes(spelled(stream).bytes_Y.tolist())
    probs, sure = ppm_probs(torch.tensor(list(text)), settings)
    expected = reference_ppm(text, settings)
    assert probs.tolist() == pytest.approx([p for p, _ in expected], abs=1e-12)
    assert sure.tolist() == [s for _, s in expected]


def mixed(model: float, ppm: float, sure: bool) -> float:
    share = SETTINGS.trusting if sure else SETTINGS.doubting
    return share * model + (1 - share) * ppm


def test_spreading_a_price_over_bytes_equals_its_description(
    net: nn.Module, stream: Tensor
) -> None:
    base = sliding(net, stream, WINDOWS)
    found = uniform_spread(base, spelled(stream), SETTINGS)
    ppm = reference_ppm(bytes(spelled(stream).bytes_Y.tolist()), SETTINGS)
    begin = [sum(len(PIECES[v]) for v in stream[:n].tolist()) for n in range(len(stream))]
    for place, nats, token_nats in zip(
        base.positions_M.tolist(), found.nats_M.tolist(), base.nats_M, strict=True
    ):
        size, product = len(PIECES[int(stream[place])]), 1.0
        for byte in range(size):
            price, sure = ppm[begin[place] + byte]
            product *= mixed(float((-token_nats / size).exp()), price, sure)
        expected = float(token_nats.neg().exp()) if size == 0 else product
        assert nats == pytest.approx(-torch.tensor(expected, dtype=torch.float64).log().item())


def test_remainder_mixing_equals_its_description(net: nn.Module, stream: Tensor) -> None:
    found = remainder_mixing(net, stream, WINDOWS, spelled(stream), FIRST_BYTE, SETTINGS)
    ppm = reference_ppm(bytes(spelled(stream).bytes_Y.tolist()), SETTINGS)
    begin = [sum(len(PIECES[v]) for v in stream[:n].tolist()) for n in range(len(stream))]
    rows: list[Tensor] = []
    for batch in WINDOWS.batches(stream):
        logits = net.logits(net.hidden(batch.inputs_BL))[batch.row_M, batch.column_M]
        rows += list(logits.detach().softmax(-1))
    for place, nats, row in zip(found.positions_M.tolist(), found.nats_M, rows, strict=True):
        token, expected = int(stream[place]), float(row[stream[place]])
        if PIECES[token]:
            marginal = sum(float(row[v]) for v in range(11) if PIECES[v][:1] == PIECES[token][:1])
            product = 1.0
            for byte in range(1, len(PIECES[token])):
                product *= ppm[begin[place] + byte][0]
            first, sure = ppm[begin[place]]
            expected = mixed(marginal, first, sure) * mixed(expected / marginal, product, sure)
        assert float(nats.neg().exp()) == pytest.approx(expected, abs=1e-9)
