"""Quantisation-aware training in the loop: when it turns on, what it leaves, what is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parbyte.base.errors import RecipeError
from parbyte.base.log import Console
from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.model.roles import parameter_roles
from parbyte.quant.config import QuantConfig
from parbyte.quant.quantize import dequantize_weights, quantize_weights
from parbyte.quant.view import packer_rounding
from parbyte.text.batches import TrainBatches
from parbyte.text.shards import open_shards
from parbyte.train import loop
from parbyte.train.config import TrainConfig
from parbyte.train.loop import TrainResult, train

TRAIN = TrainConfig(
    steps=12,
    batch_tokens=128,
    seq_len=32,
    warmup_steps=2,
    warmdown=1.0,
    min_lr=0.0,
    qat_below=0.5,
    dev_tokens=0,
    threads=1,
    device="cpu",
    log_every_seconds=0.0,
)
INT3 = QuantConfig(clip="max", bits_embed=8, bits_attn=3, bits_mlp=3, bits_proj=3, bits_table=3)

Runner = Callable[..., tuple[TrainResult, list[str]]]


class Listener(Console):
    """A console that remembers what it was told."""

    lines: list[str]

    def __init__(self) -> None:
        super().__init__(quiet=True)
        object.__setattr__(self, "lines", [])

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def run(data_folder: Path, model_config: ModelConfig) -> Runner:
    """Train the small model, or another, for 12 steps on the grid of INT3, or another."""

    def run(
        folder: Path,
        quant: QuantConfig = INT3,
        model: ModelConfig = model_config,
        **changes: Any,
    ) -> tuple[TrainResult, list[str]]:
        listener, config = Listener(), dataclasses.replace(TRAIN, **changes)
        result = train(
            model,
            config,
            data_folder,
            folder,
            world=World(),
            console=listener,
            rounding=packer_rounding(model, quant, data_folder),
        )
        return result, listener.lines

    return run


def logged(folder: Path) -> list[bool]:
    return [json.loads(line)["qat"] for line in (folder / "log.jsonl").read_text().splitlines()]


def unequal(a: TrainResult, b: TrainResult) -> list[str]:
    return [name for name in a.weights if not torch.equal(a.weights[name], b.weights[name])]


def is_on_grid(weight_RC: Tensor) -> bool:
    codes_RC = weight_RC / (weight_RC.abs().amax(1, keepdim=True) / 3)
    return bool(torch.allclose(codes_RC, codes_RC.round(), atol=1e-4))


def test_the_switch_turns_on_once_and_is_seen(
    tmp_path: Path, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    hidden = GPT.hidden

    def look(self: GPT, *inputs: Tensor, **options: Any) -> Tensor:
        seen.append(is_on_grid(dict(self.named_parameters())["blocks.0.mlp.up"]))
        return hidden(self, *inputs, **options)

    monkeypatch.setattr(GPT, "hidden", look)
    result, lines = run(tmp_path, qat="straight")
    # 12 steps fall from 1 to 0: the rates are below a half from the eighth step on.
    assert seen == [False] * 7 + [True] * 5
    assert result.qat_from == 7
    (said,) = [line for line in lines if "qat" in line]
    assert "qat = 'straight' is on from step 7" in said and "% of their size" in said
    assert logged(tmp_path) == [False] * 6 + [True] * 6
    assert not is_on_grid(result.weights["blocks.0.mlp.up"]), "the exact weights are returned"


def test_compiled_training_takes_the_switch_too(tmp_path: Path, run: Runner) -> None:
    # The eager backend traces once, as a compiler does, and needs none.
    plain = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda *a, **k: plain(*a, **{**k, "backend": "eager"}))
        patch.setattr("parbyte.train.step.compile_options", lambda: None)
        compiled, lines = run(tmp_path / "compiled", qat="straight", compile=True)
    assert any("is on from step 7" in line for line in lines)
    eager, _ = run(tmp_path / "eager", qat="straight")
    off, _ = run(tmp_path / "off")
    for name, weight in eager.weights.items():
        torch.testing.assert_close(compiled.weights[name], weight, atol=1e-3, rtol=0)
    gap = {n: (off.weights[n] - w).abs().max().item() for n, w in eager.weights.items()}
    assert max(gap.values()) > 5e-3, "rounding is felt: the comparison above is not empty"


@pytest.mark.slow
def test_a_real_compiler_takes_the_switch_too(tmp_path: Path, run: Runner) -> None:
    # A compiler's time goes with the number of blocks and parts.
    small = ModelConfig(
        vocab_size=257,
        bos_id=256,
        num_layers=1,
        model_dim=32,
        num_heads=2,
        num_kv_heads=1,
        mlp_dim=48,
    )
    compiled, _ = run(tmp_path / "compiled", model=small, qat="soft", compile=True)
    eager, _ = run(tmp_path / "eager", model=small, qat="soft")
    assert compiled.qat_from == eager.qat_from == 7
    for name, weight in eager.weights.items():
        torch.testing.assert_close(compiled.weights[name], weight, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["soft", "noise"])
def test_every_kind_changes_training_and_resumes_to_the_same_weights(
    tmp_path: Path, run: Runner, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    straight_on, _ = run(tmp_path / "whole", qat=kind)
    assert unequal(straight_on, run(tmp_path / "off")[0])
    save, tick = loop.save, loop.Budget.tick

    def stop(self: loop.Budget, step: int) -> loop.Tick:
        if step == 10:
            raise KeyboardInterrupt
        return tick(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", lambda run, *rest: run.step == 9 and save(run, *rest))
        patch.setattr(loop.Budget, "tick", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped", qat=kind, checkpoint_seconds=1e-9)
    resumed, lines = run(tmp_path / "stopped", qat=kind)
    assert any("resumed after step 9" in line for line in lines)
    assert unequal(straight_on, resumed) == [] and resumed.qat_from == 7


def test_another_grid_is_another_training(tmp_path: Path, run: Runner) -> None:
    run(tmp_path, qat="straight")
    finer = dataclasses.replace(INT3, bits_mlp=5)
    _, lines = run(tmp_path, finer, qat="straight")
    assert any("another model, recipe or text; starting anew" in line for line in lines)
    _, lines = run(tmp_path, dataclasses.replace(finer, method="gptq"), qat="straight")
    assert not any("starting anew" in line for line in lines)


def test_packing_costs_less_after_training_on_the_grid(
    tmp_path: Path, run: Runner, data_folder: Path, model_config: ModelConfig
) -> None:
    stream = open_shards(data_folder, "train")
    loader = TrainBatches(stream, bos_id=256, batch_tokens=2048, seq_len=32, seed=99)
    batch = [torch.from_numpy(rows) for rows in loader.next()]
    loader.close()

    def cost(weights: dict[str, Tensor]) -> float:
        model = GPT(model_config, seed=None).eval()
        roles, losses = parameter_roles(model), []
        for loaded in (weights, dequantize_weights(quantize_weights(weights, roles, INT3))):
            model.load_state_dict(loaded)
            losses.append(model(*batch).item())
        return losses[1] - losses[0]

    costs = {}
    for kind in ("off", "straight"):
        result, _ = run(tmp_path / kind, qat=kind, steps=80, log_every_seconds=10.0)
        costs[kind] = cost(result.weights)
    assert costs["off"] > 0.05
    assert costs["straight"] < 0.5 * costs["off"]


def test_a_training_too_short_for_the_switch_fails_and_fails_again(
    tmp_path: Path, run: Runner
) -> None:
    for _ in range(2):
        with pytest.raises(RecipeError, match=r"qat = 'noise' never turned on, 2 steps were too"):
            run(tmp_path, qat="noise", steps=2)


def test_training_without_a_grid_is_refused(
    tmp_path: Path, data_folder: Path, model_config: ModelConfig
) -> None:
    config = dataclasses.replace(TRAIN, qat="soft")
    with pytest.raises(RecipeError, match=r"'train\.qat' is 'soft'.*given no grid"):
        train(
            model_config,
            config,
            data_folder,
            tmp_path,
            world=World(),
            console=Console(quiet=True),
        )


@pytest.mark.parametrize("changes", [{"warmdown": 0.0}, {"min_lr": 0.5}])
def test_a_switch_that_could_never_turn_on_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=r"'train\.qat_below' is 0\.5.*never turn on"):
        dataclasses.replace(TRAIN, qat="straight", **changes)
