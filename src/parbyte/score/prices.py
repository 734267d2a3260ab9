"""What each token of the lanes costs: by chunks for any predictor, by windows for a bare network.

Both follow the predictor's own law. A bare network's windows do not depend on each other, so they
are priced in large batches of one shape, whatever lane they come from; on a GPU the next batch runs
while the last one's figures travel.
Shapes: B lanes, T positions, V vocab, N windows of a batch, W width, R priced positions.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from parbyte.base.clock import Stopwatch
from parbyte.kernels.transfer import Arriving, send
from parbyte.model.gpt import GPT
from parbyte.predict.neural import NeuralPredictor
from parbyte.predict.predictor import Predictor
from parbyte.predict.probe import Probe, row_prices
from parbyte.predict.windows import Windows, plan_windows
from parbyte.text.lanes import Lanes, lane_offsets

BATCH_TOKENS = {"cpu": 1 << 13, "cuda": 1 << 16}
"""Positions of one batch of windows, by kind of device."""

_COMPILE_FROM = 400
"""Batches of one shape that are worth the wait for a compiler (half a minute), on a GPU."""

Prices = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Places in the joined stream, and the nats of the tokens that stand there."""


def lane_prices(predictor: Predictor, lanes: Lanes, bos_id: int) -> Prices:
    """Price every token of the lanes once; a probe that is looked through knows it all the same."""
    bare = predictor.inner if isinstance(predictor, Probe) else predictor
    if not isinstance(bare, NeuralPredictor):
        return chunk_prices(predictor, lanes, bos_id)
    found = window_prices(bare, lanes, bos_id)
    return _told(predictor, found, lanes) if isinstance(predictor, Probe) else found


def _told(probe: Probe, found: Prices, lanes: Lanes) -> Prices:
    """Pass prices on; then tell the probe all of them, and the seconds that they took."""
    offsets = lane_offsets(lanes)
    nats_N = np.zeros(offsets[-1] + lanes.lengths[-1], np.float32)
    seconds, watch = 0.0, Stopwatch()
    for places, nats in found:
        seconds += watch.elapsed_s()
        nats_N[places] = nats
        yield places, nats
        watch = Stopwatch()
    nats_BT = np.zeros((len(offsets), max(lanes.lengths)), np.float32)
    for row_T, offset, length in zip(nats_BT, offsets, lanes.lengths, strict=True):
        row_T[:length] = nats_N[offset : offset + length]
    probe.note(nats_BT, seconds)


def chunk_prices(predictor: Predictor, lanes: Lanes, bos_id: int) -> Prices:
    """Price all lanes' chunks one after the other, in the predictor's own calls."""
    offsets, longest = lane_offsets(lanes), max(lanes.lengths)
    predictor.restore()
    for start in range(0, longest, predictor.chunk):
        stop = min(start + predictor.chunk, longest)
        tokens_BT = torch.from_numpy(lanes.padded(start, stop, bos_id))
        nats_BT = row_prices(predictor.log_probs(tokens_BT), tokens_BT)
        predictor.observe(tokens_BT)
        for row_T, offset, length in zip(nats_BT, offsets, lanes.lengths, strict=True):
            count = max(0, min(stop, length) - start)
            yield offset + start + np.arange(count), row_T[:count]
    predictor.restore()


def window_prices(predictor: NeuralPredictor, lanes: Lanes, bos_id: int) -> Prices:
    """Price the windows of a bare network in batches."""
    parts = [part for lane in lanes.tokens for part in ([bos_id], lane)]
    # Behind a lane's end a window sees other lanes: no priced position looks there.
    padding = np.full(predictor.window, bos_id)
    inputs_M = send(np.concatenate([*parts, padding]).astype(np.int64), predictor.device)
    lengths_B = np.array(lanes.lengths, np.int64)
    begins_B = np.cumsum(lengths_B + 1) - (lengths_B + 1)
    offsets_B = np.array(lane_offsets(lanes), np.int64)
    for windows in plan_windows(lanes.lengths, predictor.window, predictor.chunk):
        first_N = windows.start_N + windows.width - windows.num_priced
        begin_N = begins_B[windows.lane_N] + windows.start_N
        for batch, nats_NR in _batches(predictor, windows, inputs_M, begin_N):
            lane_N = windows.lane_N[batch]
            position_NR = first_N[batch, None] + np.arange(windows.num_priced)
            is_there_NR = position_NR < lengths_B[lane_N, None]
            place_NR = offsets_B[lane_N, None] + position_NR
            yield place_NR[is_there_NR], nats_NR[: len(lane_N)][is_there_NR]


def _batches(
    predictor: NeuralPredictor, windows: Windows, inputs_M: Tensor, begin_N: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield the windows of each batch and their nats float32[N, R], one batch behind the device."""
    device = predictor.device
    size = max(1, BATCH_TOKENS[device.type] // windows.width)
    price = window_pricer(predictor.model, windows, num_batches=-(-len(windows) // size))
    place_W = torch.arange(windows.width + 1, device=device)
    waiting: tuple[slice, Arriving] | None = None
    for start in range(0, len(windows), size):
        batch = slice(start, min(start + size, len(windows)))
        full_N = np.resize(begin_N[batch], size)  # the last batch repeats some: one shape for all
        with torch.inference_mode():
            nats_NR = price(inputs_M[send(full_N, device)[:, None] + place_W])
        if waiting is not None:
            yield waiting[0], waiting[1].wait()[0]
        waiting = batch, Arriving([nats_NR])
    if waiting is not None:
        yield waiting[0], waiting[1].wait()[0]


def window_pricer(
    model: GPT, windows: Windows, *, num_batches: int = 1
) -> Callable[[Tensor], Tensor]:
    """Return what turns W + 1 tokens of N windows into the nats float32[N, R] of the last R."""
    num_priced = windows.num_priced

    def price(tokens_NW1: Tensor) -> Tensor:
        hidden_NRD = model.hidden(tokens_NW1[:, :-1], num_last=num_priced)
        logits_NRV = model.logits(hidden_NRD)
        nats = F.cross_entropy(
            logits_NRV.flatten(0, 1), tokens_NW1[:, -num_priced:].flatten(), reduction="none"
        )
        return nats.view(-1, num_priced)

    is_on_gpu = model.embed.table.device.type == "cuda"
    if is_on_gpu and num_batches >= _COMPILE_FROM:
        return torch.compile(price, dynamic=False)
    return price
