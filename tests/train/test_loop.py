import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from parbyte.base.errors import DataError, ParbyteError, RecipeError
from parbyte.base.log import Console
from parbyte.base.world import World
from parbyte.model.config import ModelConfig
from parbyte.model.gpt import GPT
from parbyte.train import loop, step
from parbyte.train.config import TrainConfig
from parbyte.train.loop import TrainResult, train
from parbyte.train.state import Run

Runner = Callable[..., TrainResult]


class Listener(Console):
    """A console that remembers what it was told."""

    lines: list[str]

    def __init__(self) -> None:
        super().__init__(quiet=True)
        object.__setattr__(self, "lines", [])

    def say(self, text: str) -> None:
        self.lines.append(text)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same_weights(a: TrainResult, b: TrainResult) -> None:
    assert a.weights.keys() == b.weights.keys()
    assert [n for n in a.weights if not torch.equal(a.weights[n], b.weights[n])] == []


def stop_at(monkeypatch: pytest.MonkeyPatch, last_step: int, *, save_at: int) -> None:
    """Interrupt training after `last_step`, with one checkpoint, written at `save_at`."""
    save, update = loop.save, loop.Budget.tick

    def save_once(run: Run, elapsed_s: float, recent_losses: list[float]) -> None:
        if run.step == save_at:
            save(run, elapsed_s, recent_losses)

    def tick(self: loop.Budget, step: int) -> loop.Tick:
        if step == last_step:
            raise KeyboardInterrupt
        return update(self, step)

    monkeypatch.setattr(loop, "save", save_once)
    monkeypatch.setattr(loop.Budget, "tick", tick)


def test_the_loss_falls_quickly_on_real_text(tmp_path: Path, run_training: Runner) -> None:
    result = run_training(tmp_path, steps=60, log_every_seconds=0.0, dev_tokens=2048)
    losses = [line["loss"] for line in log_of(tmp_path)]
    assert losses[0] == pytest.approx(math.log(257), abs=0.3)
    assert result.final_loss < losses[0] - 2.0
    assert result.dev_bpb is not None and 2.5 < result.dev_bpb < 5.0
    assert result.steps == 60 and result.tokens == 60 * 256
    assert all(t.dtype == torch.float32 and t.device.type == "cpu" for t in result.weights.values())
    assert result.peak_memory_bytes > 10_000_000


def test_the_same_seed_gives_the_same_weights_bit_for_bit(
    tmp_path: Path, run_training: Runner
) -> None:
    first, second = run_training(tmp_path / "a"), run_training(tmp_path / "b")
    assert_same_weights(first, second)
    assert first.final_loss == second.final_loss
    other = run_training(tmp_path / "c", seed=4)
    assert not torch.equal(first.weights["embed.table"], other.weights["embed.table"])


def test_a_stopped_run_resumes_to_the_same_weights(
    tmp_path: Path, run_training: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training = partial(run_training, grad_clip=0.5, dropout=0.1, mtp_heads=2)
    straight = run_training(tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_at(patch, 13, save_at=10)
        with pytest.raises(KeyboardInterrupt):
            run_training(tmp_path / "stopped", checkpoint_seconds=1e-9)
    listener = Listener()
    resumed = run_training(tmp_path / "stopped", console=listener)
    assert any("resumed after step 10" in line for line in listener.lines)
    assert_same_weights(straight, resumed)
    assert (resumed.steps, resumed.final_loss) == (straight.steps, straight.final_loss)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, run_training: Runner) -> None:
    first = run_training(tmp_path, dev_tokens=512)
    log = (tmp_path / "log.jsonl").read_bytes()
    again = run_training(tmp_path, dev_tokens=512)
    assert_same_weights(first, again)
    assert (again.steps, again.dev_bpb, again.final_loss) == (30, first.dev_bpb, first.final_loss)
    assert (tmp_path / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize("changes", [{"seed": 9}, {"matrix_lr": 0.01}, {"batch_tokens": 128}])
def test_a_checkpoint_of_another_recipe_is_not_resumed(
    tmp_path: Path, run_training: Runner, changes: dict
) -> None:
    run_training(tmp_path)
    listener = Listener()
    result = run_training(tmp_path, console=listener, **changes)
    assert any("another model, recipe or text; starting anew" in line for line in listener.lines)
    assert_same_weights(result, run_training(tmp_path / "fresh", **changes))


def test_a_damaged_checkpoint_is_not_resumed(tmp_path: Path, run_training: Runner) -> None:
    first = run_training(tmp_path)
    (path,) = (tmp_path / "checkpoint").glob("*/tensors.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    listener = Listener()
    assert_same_weights(first, run_training(tmp_path, console=listener))
    assert any("damaged" in line for line in listener.lines)


def test_bookkeeping_does_not_change_the_weights(tmp_path: Path, run_training: Runner) -> None:
    plain = run_training(tmp_path / "a", log_every_seconds=100.0, checkpoint_seconds=0.0)
    busy = run_training(
        tmp_path / "b",
        log_every_seconds=0.0,
        checkpoint_seconds=1e-9,
        dev_tokens=512,
        dev_every_seconds=0.01,
    )
    assert_same_weights(plain, busy)
    assert not (tmp_path / "a" / "checkpoint").exists()


def test_micro_batches_make_the_same_steps(tmp_path: Path, run_training: Runner) -> None:
    whole = run_training(tmp_path / "a")
    parts = run_training(tmp_path / "b", micro_batch_tokens=64)
    for name, weight in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], weight, atol=2e-3, rtol=0)
    assert parts.final_loss == pytest.approx(whole.final_loss, abs=1e-4)


def test_a_budget_in_seconds_is_kept_to_a_step(tmp_path: Path, run_training: Runner) -> None:
    result = run_training(tmp_path, steps=0, seconds=1.0, log_every_seconds=0.0)
    stamps = [0.0, *(line["seconds"] for line in log_of(tmp_path))]
    longest = max(b - a for a, b in pairwise(stamps))
    assert abs(result.seconds - 1.0) <= 2 * longest + 0.05
    rates = [line["lr"] for line in log_of(tmp_path)]
    assert rates[-1] < 0.25 * max(rates), "the warm-down follows the clock"


def test_a_divergence_is_one_clear_line(tmp_path: Path, run_training: Runner) -> None:
    with pytest.raises(RecipeError, match=r"diverged.*at step \d+; lower 'train\.matrix_lr'"):
        run_training(tmp_path, embed_lr=1e38, scalar_lr=1e38, log_every_seconds=0.0)
    assert not list((tmp_path / "checkpoint").glob("step-*"))


def test_a_run_too_short_for_the_warm_down_says_so(tmp_path: Path, run_training: Runner) -> None:
    listener = Listener()
    run_training(tmp_path, steps=2, console=listener)
    assert any("too few to reach the warm-down" in line for line in listener.lines)


def test_a_model_for_another_tokenizer_is_refused(tmp_path: Path, data_folder: Path) -> None:
    config = TrainConfig(steps=1, threads=1)
    model = ModelConfig(vocab_size=300)
    with pytest.raises(DataError, match=r"300 ids.*257"):
        train(model, config, data_folder, tmp_path, world=World(), console=Console(quiet=True))


def test_a_folder_without_data_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ParbyteError, match="holds no prepared data"):
        train(
            ModelConfig(),
            TrainConfig(threads=1),
            tmp_path,
            tmp_path,
            world=World(),
            console=Console(quiet=True),
        )


def test_the_loop_is_off_until_its_fraction_of_the_budget(
    tmp_path: Path, data_folder: Path, train_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    hidden = GPT.hidden

    def count(self: GPT, tokens_BT: Tensor, *, ends_E: Tensor | None) -> Tensor:
        if self.training:
            passes.append(len(self.visits))
        return hidden(self, tokens_BT, ends_E=ends_E)

    monkeypatch.setattr(GPT, "hidden", count)
    model = ModelConfig(num_layers=3, model_dim=32, num_heads=2, num_kv_heads=1, loop=(0, 1, 2))
    config = dataclasses.replace(train_config, steps=10, loop_at=0.4)
    train(model, config, data_folder, tmp_path, world=World(), console=Console(quiet=True))
    assert passes == [3] * 4 + [7] * 6


def test_compiled_training_has_a_graph_with_the_loop_and_one_without(
    tmp_path: Path, data_folder: Path, train_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        compiled.append(len(graph.graph.nodes))
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    monkeypatch.setattr(step, "compile_options", lambda: None)
    model = ModelConfig(model_dim=32, num_heads=2, num_kv_heads=1, loop=(0, 1, 1))
    quiet, losses = Console(quiet=True), []
    for compile in (False, True):
        config = dataclasses.replace(
            train_config, steps=4, loop_at=0.5, compile=compile, log_every_seconds=0.0
        )
        folder = tmp_path / str(compile)
        train(model, config, data_folder, folder, world=World(), console=quiet)
        losses.append([line["loss"] for line in log_of(folder)])
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert len(compiled) == 2 and compiled[1] > compiled[0]
