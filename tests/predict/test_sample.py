"""Sampling draws from the predictor's law, reproducibly."""

import torch
from torch import Tensor

from parbyte.predict.predictor import Predictor
from parbyte.predict.sample import generate
from parbyte.text.byte_tokenizer import ByteTokenizer


class Counting(Predictor):
    """After byte b comes b + 1, surely; `ends_at` is followed by BOS."""

    vocab_size, chunk = 257, 4

    def __init__(self, ends_at: int = 255) -> None:
        self._ends_at = ends_at
        self._last_B = torch.tensor([256])
        self.observed: list[int] = []

    def log_probs(self, tokens_BT: Tensor) -> Tensor:
        past_BT = torch.cat([self._last_B[:, None], tokens_BT[:, :-1]], dim=1)
        next_BT = torch.where(past_BT == self._ends_at, 256, (past_BT + 1) % 257)
        sure = torch.nn.functional.one_hot(next_BT, 257).float()
        return (sure * 60).log_softmax(-1)

    def observe(self, chunk_BT: Tensor) -> None:
        super().observe(chunk_BT)
        self.observed += chunk_BT[0].tolist()
        self._last_B = chunk_BT[:, -1]

    def restore(self) -> None:
        super().restore()
        self._last_B = torch.tensor([256])
        self.observed = []


def test_text_goes_on_after_the_prompt() -> None:
    predictor = Counting()
    drawn = b"".join(generate(predictor, ByteTokenizer(), b"xyzabc", 6))
    assert drawn == b"defghi"
    assert bytes(predictor.observed) == b"xyzabcdefghi"


def test_a_sample_ends_with_its_document() -> None:
    assert b"".join(generate(Counting(ord("e")), ByteTokenizer(), b"abc", 50)) == b"de"


def test_the_likeliest_token_is_drawn_at_temperature_zero() -> None:
    drawn = generate(Counting(), ByteTokenizer(), b"a", 3, temperature=0.0)
    assert b"".join(drawn) == b"bcd"


def test_the_seed_decides_the_sample() -> None:
    samples = [
        b"".join(generate(Counting(), ByteTokenizer(), b"a", 20, temperature=30.0, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert samples[0] == samples[1] != samples[2]
