"""Does a file survive being coded again? Codes, floats and the network's answers, to the bit."""

import json
from pathlib import Path

import torch
from torch import Tensor

from parbyte.model.gpt import GPT
from parbyte.pack.artifact import load_artifact
from parbyte.pack.container import Container, PayloadWriter, read_container, read_file
from parbyte.pack.entries import TensorEntry, read_entry, restore_codes, write_entry
from parbyte.pack.header import parse_header
from parbyte.pack.tensors import Layout, shrink_codes
from parbyte.quant.grid import Codes, dequantize


@torch.no_grad()
def check_round_trip(path: Path, probe_BT: Tensor) -> dict[str, bool]:
    """Code every tensor's codes again, decode them, and compare; then ask both models.

    probe_BT: int64[B, T] tokens. Returns whether all codes with their scales, all weights, and all
    logits of the probe are equal to those of the file as it is read. Raises ArtifactError.
    """
    container = read_container(read_file(path))
    model = load_artifact(path).model
    twin = GPT(model.config, seed=None).eval()
    twin.load_state_dict(model.state_dict())
    parameters = dict(twin.named_parameters())
    codes_equal = weights_equal = True
    for entry in parse_header(container).tensors:
        if entry.scale is None:
            continue
        item = restore_codes(container, entry)
        again = _coded_again(item, entry)
        codes_equal &= torch.equal(item.codes, again.codes) and torch.equal(item.scale, again.scale)
        weight = dequantize(again)
        weights_equal &= torch.equal(parameters[entry.name], weight)
        parameters[entry.name].copy_(weight)
    logits = [net.logits(net.hidden(probe_BT)) for net in (model, twin)]
    return {
        "codes_equal": codes_equal,
        "weights_equal": weights_equal,
        "logits_equal": torch.equal(*logits),
    }


def _coded_again(item: Codes, entry: TensorEntry) -> Codes:
    coders = () if entry.values.coder == "raw" else (entry.values.coder,)
    payload = PayloadWriter()
    streams = shrink_codes(item, coders, Layout(entry.values.coder, entry.transposed))
    row = json.loads(json.dumps(write_entry(item, streams, coders, payload)))
    container = Container({}, memoryview(payload.payload()), 0)
    return restore_codes(container, read_entry({"name": entry.name, **row}))
