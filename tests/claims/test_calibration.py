"""GPTQ on the scored text against a column-by-column reference that inverts anew at each column."""

import torch
from torch import Tensor

from parbyte.claims.calibration import INT6, OnText, rounded_on_text
from parbyte.claims.windows import Windows
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import role_of
from parbyte.quant.grid import Codes
from parbyte.quant.quantize import quantize_weights

VOCAB = 24
WINDOWS = Windows(window=16, stride=4)
CONFIG = ModelConfig(
    vocab_size=VOCAB,
    bos_id=0,
    num_layers=1,
    model_dim=16,
    num_heads=2,
    num_kv_heads=2,
    mlp_dim=24,
    rope_dims=4,
)
MODEL = GPT(CONFIG, seed=0).eval().requires_grad_(False)
TEXT_N = torch.randint(0, VOCAB, (110,), generator=torch.Generator().manual_seed(1))


def slow_round(weight_RC: Tensor, scale_R1: Tensor, hessian_CC: Tensor, bits: int) -> Tensor:
    """Round column by column; each error is pushed onto the rest by the rest's own inverse."""
    most = 2 ** (bits - 1) - 1
    diagonal_C = hessian_CC.diagonal()
    damped_CC = hessian_CC + INT6.damping * diagonal_C.mean() * torch.eye(len(diagonal_C)).double()
    rest = torch.argsort(diagonal_C, descending=True, stable=True).tolist()
    steps_RC = weight_RC.double() / scale_R1
    codes_RC = torch.zeros_like(steps_RC)
    while rest:
        inverse = torch.linalg.inv(damped_CC[rest][:, rest])
        column, *later = rest
        codes_RC[:, column] = steps_RC[:, column].round().clamp(-most, most)
        error_R = (steps_RC[:, column] - codes_RC[:, column]) / inverse[0, 0]
        steps_RC[:, later] -= error_R[:, None] * inverse[0, 1:]
        rest = later
    nearest_RC = (weight_RC.double() / scale_R1).round().clamp(-most, most)

    def harm_R(codes_RC: Tensor) -> Tensor:
        error_RC = weight_RC.double() - codes_RC * scale_R1
        return ((error_RC @ hessian_CC) * error_RC).sum(1)

    is_better_R1 = (harm_R(codes_RC) <= harm_R(nearest_RC))[:, None]
    return torch.where(is_better_R1, codes_RC, nearest_RC) * scale_R1


def test_the_token_table_is_rounded_by_the_hessian_of_the_scored_text() -> None:
    model, length = MODEL, WINDOWS.window
    rounded = rounded_on_text(model, TEXT_N, WINDOWS, OnText())
    whole = len(TEXT_N) // length
    hidden_ND = model.hidden(TEXT_N[: whole * length].view(whole, length)).flatten(0, 1).double()
    name = "embed.table"
    weight_VD = dict(model.named_parameters())[name]
    nearest = quantize_weights({name: weight_VD}, {name: role_of(name)}, INT6)[name]
    assert isinstance(nearest, Codes)
    scale_V1 = nearest.scale.double().view(VOCAB, 1)
    hessian_DD = hidden_ND.T @ hidden_ND / len(hidden_ND)
    wanted_VD = slow_round(weight_VD, scale_V1, hessian_DD, INT6.bits_embed)
    found_VD = dict(rounded.named_parameters())[name]
    torch.testing.assert_close(found_VD.double(), wanted_VD, atol=1e-6, rtol=0)


def test_another_text_gives_other_weights_and_no_text_gives_the_nearest() -> None:
    def table(stream_N: Tensor) -> Tensor:
        model = rounded_on_text(MODEL, stream_N, WINDOWS, OnText())
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    assert torch.equal(table(TEXT_N), table(TEXT_N.clone()))
    assert not torch.equal(table(TEXT_N), table(TEXT_N.flip(0)))
    assert torch.equal(table(TEXT_N[:3]), table(TEXT_N[5:9]))
