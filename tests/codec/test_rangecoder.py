"""The coder restores every symbol, and its bits are as long as the probabilities say."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parbyte.base.errors import BitstreamError
from parbyte.codec.freqs import Freqs, to_freqs
from parbyte.codec.rangecoder import Decoder, Encoder


def random_rows(steps: int, lanes: int, vocab_size: int, scale: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(steps, lanes, vocab_size, generator=generator)
    return logits.log_softmax(-1)


def encode(rows_TBV: Tensor, symbols_BT: np.ndarray) -> bytes:
    encoder = Encoder(list(symbols_BT.astype(np.uint16)))
    for rows_BV in rows_TBV:
        encoder.code(to_freqs(rows_BV), np.arange(len(symbols_BT)))
    return encoder.to_bytes()


def decode(rows_TBV: Tensor, payload: bytes) -> np.ndarray:
    decoder = Decoder(payload, rows_TBV.shape[2])
    lanes_B = np.arange(rows_TBV.shape[1])
    return np.stack([decoder.code(to_freqs(rows_BV), lanes_B) for rows_BV in rows_TBV], axis=1)


@given(st.integers(2, 700), st.integers(1, 5), st.floats(0.0, 60.0), st.integers(0, 999), st.data())
def test_symbols_survive_whatever_their_probability(
    vocab_size: int, lanes: int, scale: float, seed: int, data: st.DataObject
) -> None:
    rows_TBV = random_rows(4, lanes, vocab_size, scale, seed)
    numbers = st.lists(st.integers(0, vocab_size - 1), min_size=4 * lanes, max_size=4 * lanes)
    symbols_BT = np.array(data.draw(numbers)).reshape(lanes, 4)
    assert np.array_equal(decode(rows_TBV, encode(rows_TBV, symbols_BT)), symbols_BT)


@given(st.integers(2, 3000), st.floats(0.0, 60.0), st.integers(0, 999))
def test_frequencies_are_whole_and_leave_one_for_each_symbol(
    vocab_size: int, scale: float, seed: int
) -> None:
    freqs = to_freqs(random_rows(1, 3, vocab_size, scale, seed)[0])
    for groups_A in (np.zeros(3, np.int32), np.array([0, 1, 1], np.int32)):
        for freqs_AN in (freqs.groups_AG, freqs.members_of(groups_A)):
            assert (freqs_AN >= 0).all()
            assert (freqs_AN == np.floor(freqs_AN)).all()
            sums = freqs_AN.astype(np.float64).sum(axis=1)
            assert (sums == 2**24 - freqs_AN.shape[1]).all()


@pytest.mark.parametrize("vocab_size", [2, 257, 4096, 8191, 65_536])
def test_the_least_likely_symbols_can_be_coded(vocab_size: int) -> None:
    rows_TBV = torch.full((2, 2, vocab_size), -torch.inf)
    rows_TBV[..., 0] = 0.0
    symbols_BT = np.array([[vocab_size - 1, 0], [1, vocab_size // 2]])
    assert np.array_equal(decode(rows_TBV, encode(rows_TBV, symbols_BT)), symbols_BT)


@pytest.mark.parametrize("vocab_size", [257, 1024, 4096, 65_536])
def test_the_excess_over_the_ideal_codelength_is_below_one_in_5000(vocab_size: int) -> None:
    steps, lanes, repeats = 12, 8, 400
    rows_TBV = random_rows(steps, lanes, vocab_size, 2.5, seed=5)
    generator = torch.Generator().manual_seed(6)
    flat = rows_TBV.exp().flatten(0, 1)
    drawn = torch.multinomial(flat, repeats, replacement=True, generator=generator)
    symbols_TBR = drawn.view(steps, lanes, repeats)
    encoder = Encoder([symbols_TBR[:, b].reshape(-1).numpy().astype(np.uint16) for b in range(8)])
    for rows_BV in rows_TBV:
        freqs = to_freqs(rows_BV)
        for _ in range(repeats):
            encoder.code(freqs, np.arange(lanes))
    bits = 8 * len(encoder.to_bytes())
    ideal_bits = -float(rows_TBV.double().gather(2, symbols_TBR).sum()) / np.log(2.0)
    # The last words are paid once a frame, whatever its length.
    assert abs(bits - ideal_bits) < 64 + 1e-4 * ideal_bits


def test_the_last_symbol_of_a_part_can_always_be_coded() -> None:
    # Float sums may round up to the whole: then nothing would be left for the last symbol.
    rows_TBV = random_rows(200, 4, 512, 20.0, seed=3)
    symbols_BT = np.tile(np.array([[511], [31], [63], [480]]), (1, 200))
    assert np.array_equal(decode(rows_TBV, encode(rows_TBV, symbols_BT)), symbols_BT)


def test_the_coder_takes_frequencies_as_they_are() -> None:
    freqs = to_freqs(random_rows(1, 1, 300, 3.0, seed=4)[0])
    symbols = np.random.default_rng(0).integers(0, 300, 4000)
    encoder = Encoder([symbols.astype(np.uint16)])
    bits = 0.0
    for symbol in symbols:
        group_A = np.array([symbol // freqs.group_size], np.int32)
        member = symbol % freqs.group_size
        encoder.code(freqs, np.array([0]))
        bits -= np.log2((float(freqs.groups_AG[0, group_A[0]]) + 1) / 2**24)
        bits -= np.log2((float(freqs.members_of(group_A)[0, member]) + 1) / 2**24)
    assert abs(8 * len(encoder.to_bytes()) - bits) < 64


def test_the_bits_are_part_of_the_format() -> None:
    freqs = Freqs(
        np.array([[2**23, 2**22, 2**22 - 3]], np.float32),
        np.array([[[8.0, 4.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.5, 16.0, 1.0, 2.0]]], np.float32),
        np.array([0]),
    )
    symbols = np.arange(80) * 7 % 12
    encoder = Encoder([symbols.astype(np.uint16)])
    for _ in symbols:
        encoder.code(freqs, np.array([0]))
    payload = encoder.to_bytes()
    decoder = Decoder(payload, 12)
    assert [int(decoder.code(freqs, np.array([0]))[0]) for _ in symbols] == symbols.tolist()
    assert (len(payload), hashlib.sha256(payload).hexdigest()[:16]) == (44, "a74f645ddc5e5e73")


@given(st.binary(max_size=80), st.integers(2, 300))
def test_foreign_bits_give_tokens_or_an_error(junk: bytes, vocab_size: int) -> None:
    rows_TBV = random_rows(12, 2, vocab_size, 1.0, seed=0)
    payload = junk[: len(junk) // 4 * 4]
    try:
        symbols_BT = decode(rows_TBV, payload)
    except BitstreamError:
        return
    assert symbols_BT.min() >= 0
    assert symbols_BT.max() < vocab_size


@pytest.mark.parametrize("vocab_size", [4, 5, 257])
def test_bits_of_no_symbol_are_refused(vocab_size: int) -> None:
    with pytest.raises(BitstreamError, match="does not fit the model"):
        decode(random_rows(40, 2, vocab_size, 1.0, seed=0), b"\xff" * 200)


def test_a_payload_of_broken_words_is_refused() -> None:
    with pytest.raises(BitstreamError, match="within a word"):
        Decoder(b"12345", 10)


def test_rows_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BitstreamError, match="no finite probabilities"):
        to_freqs(torch.full((1, 10), torch.nan))


def test_lanes_may_end_one_after_the_other() -> None:
    rows_TBV = random_rows(3, 3, 10, 1.0, seed=1)
    known = [np.array([4, 5, 6], np.uint16), np.array([7], np.uint16), np.array([8, 9], np.uint16)]
    encoder = Encoder(known)
    open_lanes = [np.array([0, 1, 2]), np.array([0, 2]), np.array([0])]
    for rows_BV, lanes_A in zip(rows_TBV, open_lanes, strict=True):
        encoder.code(to_freqs(rows_BV[lanes_A]), lanes_A)
    decoder = Decoder(encoder.to_bytes(), 10)
    decoded = [
        decoder.code(to_freqs(rows_BV[lanes_A]), lanes_A).tolist()
        for rows_BV, lanes_A in zip(rows_TBV, open_lanes, strict=True)
    ]
    assert decoded == [[4, 7, 8], [5, 9], [6]]
