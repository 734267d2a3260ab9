"""The text that a quantiser may look at: of the training split, of the model's own, or noise.

There is no way to make a `TrainingText` of any other split, nor a `Calibration` of any other
text: what is held out cannot be passed, whatever a caller does. Shapes: W windows, T positions.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from parbyte.base.errors import DataError
from parbyte.model.gpt import GPT
from parbyte.text.manifest import load_manifest
from parbyte.text.shards import TokenStream, open_shards

_KEY = object()
_LANES = 32
_TEMPERATURE = 0.8


class TrainingText:
    """The training split of a prepared data folder, and nothing else of that folder."""

    def __init__(self, data_folder: Path) -> None:
        """Open the split; raises DataError if it is missing or damaged."""
        self.stream: TokenStream = open_shards(data_folder, "train")
        self.bos_id = load_manifest(data_folder).bos_id


class Calibration:
    """Windows of tokens to run a model on, int64[W, T]; made by the three functions below."""

    def __init__(self, windows_WT: Tensor, source: str, key: object) -> None:
        assert key is _KEY, "only this file makes calibration windows"
        self.windows_WT = windows_WT
        self.source = source


def training_windows(text: TrainingText, num_tokens: int, length: int) -> Calibration:
    """Return windows spread evenly over the training text; DataError if it is shorter than one."""
    num_windows = len(text.stream) // length
    if num_windows == 0:
        raise DataError(
            f"the training text has {len(text.stream):,} tokens, calibration needs {length:,}; "
            "lower 'train.seq_len' or set 'quant.calibration' to \"self\""
        )
    num_chosen = max(1, min(num_windows, num_tokens // length))
    starts = np.arange(num_chosen) * num_windows // num_chosen * length
    windows = np.stack([text.stream[start : start + length] for start in starts.tolist()])
    return Calibration(torch.from_numpy(windows.astype(np.int64)), "training text", _KEY)


@torch.no_grad()
def generated_windows(model: GPT, num_tokens: int, length: int, seed: int) -> Calibration:
    """Return text that the model draws from itself, many lanes at once, with cached keys.

    Source: openai/parameter-golf PR 1019, there without a cache.
    """
    generator = torch.Generator().manual_seed(seed)
    num_windows = max(1, num_tokens // length)
    windows = []
    for start in range(0, num_windows, _LANES):
        num_lanes = min(_LANES, num_windows - start)
        cache = model.new_cache(num_lanes, length)
        tokens = [torch.full((num_lanes, 1), model.config.bos_id)]
        for _ in range(length - 1):
            logits_BV = model.logits(model.hidden(tokens[-1], cache))[:, 0]
            probs_BV = torch.softmax(logits_BV / _TEMPERATURE, dim=-1)
            tokens.append(torch.multinomial(probs_BV, 1, generator=generator))
        windows.append(torch.cat(tokens, dim=1))
    return Calibration(torch.cat(windows), "the model's own text", _KEY)


def random_windows(vocab_size: int, num_tokens: int, length: int, seed: int) -> Calibration:
    """Return uniformly random tokens: the control, which knows nothing of the text."""
    generator = torch.Generator().manual_seed(seed)
    shape = (max(1, num_tokens // length), length)
    return Calibration(
        torch.randint(0, vocab_size, shape, generator=generator), "random tokens", _KEY
    )
