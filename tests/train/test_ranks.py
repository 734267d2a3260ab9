import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from parbyte.base.world import World
from parbyte.train.exchange import average_gradients_, share_of
from parbyte.train.loop import TrainResult

CHANGES = {
    "log_every_seconds": 0.0,
    "grad_clip": 0.3,
    "dev_tokens": 1024,
    "row_normalize": True,
    "mtp_heads": 1,
}


def losses_of(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_ranks_train_as_one(
    tmp_path: Path, data_folder: Path, run_training: Callable[..., TrainResult]
) -> None:
    script = Path(__file__).with_name("ranks.py")
    words = [sys.executable, script, data_folder, tmp_path, "2", "4"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = run_training(tmp_path / "1", **CHANGES)
    for num_ranks in (2, 4):
        compare(tmp_path / str(num_ranks), num_ranks, tmp_path / "1", alone)


def compare(folder: Path, num_ranks: int, alone_folder: Path, alone: TrainResult) -> None:
    found = json.loads((folder / "found.json").read_text())
    weights = [1.0, *[0.25] * (num_ranks - 1)]
    mean = sum(w * (1.0 + rank) for rank, w in enumerate(weights)) / sum(weights)
    assert found["mean"] == pytest.approx([mean] * 3)
    assert found["mean_of_large"] == pytest.approx([1.0])
    assert found["means_of_stack"] == pytest.approx([mean * piece for piece in range(5)])
    squares = 3 * mean**2 + 40_000 + sum((mean * piece) ** 2 for piece in range(5))
    assert found["joint_norm"] == pytest.approx(squares**0.5)
    assert found["gathered"] == [0.0, 1.0, 2.0, 3.0, 4.0]

    assert losses_of(folder) == pytest.approx(losses_of(alone_folder), abs=1e-4)
    assert found["final_loss"] == pytest.approx(alone.final_loss, abs=1e-4)
    assert found["dev_bpb"] == pytest.approx(alone.dev_bpb, abs=1e-3)
    ranks = [load_file(folder / f"weights_{rank}.safetensors") for rank in range(num_ranks)]
    for name, weight in alone.weights.items():
        same = all(torch.equal(ranks[0][name], rank[name]) for rank in ranks)
        assert same, f"ranks drift apart in '{name}'"
        torch.testing.assert_close(ranks[0][name], weight, atol=2e-3, rtol=0)
    saved = load_checkpoint(folder)
    for name, tensor in load_checkpoint(alone_folder).items():
        torch.testing.assert_close(saved[name], tensor, atol=2e-3, rtol=0)


def load_checkpoint(run_folder: Path) -> dict[str, Tensor]:
    (path,) = run_folder.glob("checkpoint/*/tensors.safetensors")
    return load_file(path)


@pytest.mark.parametrize(("num_pieces", "size"), [(1, 1), (5, 2), (2, 4), (16, 8), (11, 8), (3, 3)])
def test_shares_cover_all_pieces_once(num_pieces: int, size: int) -> None:
    shares = [share_of(num_pieces, World(rank=rank, size=size)) for rank in range(size)]
    covered = [piece for share in shares for piece in range(share.start, share.stop)]
    assert covered == list(range(num_pieces))
    assert {share.padded for share in shares} == {-(-num_pieces // size)}


def test_one_rank_divides_by_its_own_weight() -> None:
    grads, stack = [torch.full((3,), 0.5)], torch.full((2, 1, 3), 0.25)
    (own,) = average_gradients_([stack], grads, 0.5, World())
    assert torch.equal(grads[0], torch.ones(3))
    assert torch.equal(own, torch.full((2, 1, 3), 0.5))
