"""The ranks of test_ranks.py, with torchrun's variables.

Arguments: data folder, folder of all runs, and for each run how many ranks it has.

They are forked once everything is imported: starting the interpreter for each would take longest.
"""

import json
import multiprocessing
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))

from conftest import MODEL, TRAIN
from parbyte.base.log import Console
from parbyte.base.world import init_process_group, leave_process_group, world_from_environment
from parbyte.train.exchange import Gathering, average_gradients_, joint_norm, share_of
from parbyte.train.loop import train

CHANGES = {
    "log_every_seconds": 0.0,
    "grad_clip": 0.3,
    "dev_tokens": 1024,
    "row_normalize": True,
    "mtp_heads": 1,
}


def be_rank(rank: int, data_folder: Path, run_folder: Path) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    world = world_from_environment()
    init_process_group(world, "cpu")
    # Ranks with all and a quarter of their positions counted: the mean is over positions.
    weight = 1.0 if world.is_main else 0.25
    grads = [torch.full((3,), weight * (1.0 + world.rank)), torch.full((40_000,), weight)]
    stack = weight * (1.0 + world.rank) * torch.arange(5.0).reshape(5, 1, 1)
    (own,) = average_gradients_([stack], grads, weight, world)
    norm = joint_norm([own], grads, world)
    share = share_of(5, world)
    means = Gathering(own, 5, world).wait()
    pieces = torch.arange(5.0).reshape(5, 1, 1)[share.start : share.stop]
    gathered = Gathering(pieces, 5, world).wait()
    config = replace(TRAIN, **CHANGES)
    quiet = Console(quiet=True)
    result = train(MODEL, config, data_folder, run_folder, world=world, console=quiet)
    save_file(result.weights, run_folder / f"weights_{world.rank}.safetensors")
    if world.is_main:
        found = {
            "mean": grads[0].tolist(),
            "mean_of_large": grads[1].unique().tolist(),
            "means_of_stack": means.flatten().tolist(),
            "joint_norm": norm.item(),
            "gathered": gathered.flatten().tolist(),
            "final_loss": result.final_loss,
            "dev_bpb": result.dev_bpb,
        }
        (run_folder / "found.json").write_text(json.dumps(found))
    leave_process_group(world)


def main() -> int:
    data_folder, runs = Path(sys.argv[1]), Path(sys.argv[2])
    return max(train_as_one(int(size), data_folder, runs / size) for size in sys.argv[3:])


def train_as_one(size: int, data_folder: Path, run_folder: Path) -> int:
    run_folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    fork = multiprocessing.get_context("fork")
    folders = (data_folder, run_folder)
    ranks = [fork.Process(target=be_rank, args=(rank, *folders)) for rank in range(size)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return max(abs(rank.exitcode or 0) for rank in ranks)


if __name__ == "__main__":
    sys.exit(main())
