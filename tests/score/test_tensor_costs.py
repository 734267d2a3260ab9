"""score.tensor_costs: one tensor at a time against a model built by hand, and all windows read."""

import numpy as np
import pytest
import torch

from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.score.tensor_costs import Reading, tensor_costs

CONFIG = ModelConfig(
    vocab_size=40,
    bos_id=0,
    num_layers=1,
    model_dim=16,
    num_heads=2,
    num_kv_heads=1,
    mlp_dim=24,
    rope_dims=4,
)


def reference_bpb(weights: dict[str, torch.Tensor], ids: np.ndarray, window: int) -> float:
    """Bits per byte, token by token, each window read for itself."""
    model = GPT(CONFIG, seed=None).eval()
    model.load_state_dict(weights)
    tokens, bits = [0, *ids.tolist()], 0.0
    with torch.no_grad():
        for start in range(0, len(ids), window):
            inputs = torch.tensor([tokens[start : start + window][: len(ids) - start]])
            logits = model.logits(model.hidden(inputs))[0].double()
            for place, row in enumerate(torch.log_softmax(logits, -1)):
                bits -= float(row[tokens[start + place + 1]]) / np.log(2.0)
    return bits / 100


@pytest.mark.parametrize(("num_tokens", "window"), [(70, 16), (64, 16), (5, 16)])
def test_each_cost_is_that_of_one_packed_tensor_among_floats(num_tokens: int, window: int) -> None:
    generator = np.random.default_rng(0)
    ids = generator.integers(1, 40, num_tokens).astype(np.uint16)
    noise = torch.Generator().manual_seed(0)
    floats = {
        name: p.detach() + 0.2 * torch.randn(p.shape, generator=noise)
        for name, p in GPT(CONFIG, seed=0).named_parameters()
    }
    packed = GPT(CONFIG, seed=None).eval().requires_grad_(False)
    packed.load_state_dict({name: 1.3 * weight for name, weight in floats.items()})
    names = ["embed.table", "blocks.0.mlp.up"]
    before = {name: p.clone() for name, p in packed.named_parameters()}
    costs = tensor_costs(packed, floats, names, Reading.of(ids, 0, window, 100))
    plain = reference_bpb(floats, ids, window)
    assert costs.float_bpb == pytest.approx(plain, rel=1e-5)
    assert costs.packed_bpb == pytest.approx(reference_bpb(before, ids, window), rel=1e-5)
    for name in names:
        one = reference_bpb({**floats, name: before[name]}, ids, window)
        assert costs.cost_bpb[name] == pytest.approx(one - plain, abs=1e-5)
        assert abs(costs.cost_bpb[name]) > 1e-4
        assert costs.error_percent[name] == pytest.approx(30.0, rel=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in packed.named_parameters())
