"""Bits per byte on the development slice, for the eye: outside the clock, never trained on.

Letters: W windows, B windows of one forward, T positions.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from parbyte.base.units import bits_per_byte
from parbyte.base.world import World, sum_floats
from parbyte.text.manifest import load_manifest
from parbyte.text.prepare import load_run_tokenizer
from parbyte.text.shards import open_shards
from parbyte.train.config import TrainConfig

# Small forwards: without a compiled loss the logits of a whole batch could fill a GPU.
_FORWARD_TOKENS = 16_384


class Development:
    """Windows of the development slice, spread evenly over it, shared between the ranks."""

    def __init__(
        self, data_folder: Path, config: TrainConfig, world: World, device: torch.device
    ) -> None:
        """Read the windows; an empty slice, or one shorter than a window, measures nothing."""
        self._world = world
        self._device = device
        self._windows_WT = np.empty((0, config.seq_len + 1), np.int64)
        self.num_bytes = 0
        if config.dev_tokens and load_manifest(data_folder).splits["dev"].tokens > config.seq_len:
            self._read(data_folder, config)
        self._rows = max(1, _FORWARD_TOKENS // config.seq_len)

    def bpb(self, model: nn.Module, weights: Mapping[str, Tensor]) -> float | None:
        """Return the bits per byte of `model` with `weights` in place of its own, or None.

        Every window starts without context, so this is a little above a measured score.
        """
        if self.num_bytes == 0:
            return None
        own_WT = self._windows_WT[self._world.rank :: self._world.size]
        nats = 0.0
        model.eval()
        for start in range(0, len(own_WT), self._rows):
            tokens = torch.from_numpy(own_WT[start : start + self._rows]).to(self._device)
            batch = (tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
            with torch.no_grad():
                loss = torch.func.functional_call(model, dict(weights), batch)
            nats += loss.item() * batch[1].numel()
        model.train()
        (total_nats,) = sum_floats(self._world, [nats], self._device.type)
        return bits_per_byte(total_nats, self.num_bytes)

    def _read(self, data_folder: Path, config: TrainConfig) -> None:
        ids = open_shards(data_folder, "dev")[:]
        counts = load_run_tokenizer(data_folder).byte_counts(ids)
        num_windows = (len(ids) - 1) // config.seq_len
        num_chosen = max(1, min(num_windows, config.dev_tokens // config.seq_len))
        starts = np.arange(num_chosen) * num_windows // num_chosen * config.seq_len
        spans = [slice(start, start + config.seq_len + 1) for start in starts.tolist()]
        self._windows_WT = np.stack([ids[span] for span in spans]).astype(np.int64)
        self.num_bytes = sum(int(counts[span][1:].sum()) for span in spans)
