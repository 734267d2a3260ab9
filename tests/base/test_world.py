"""A plain process is a world of one: every collective returns at once and joins nothing."""

import pytest
import torch.distributed as dist

from parbyte.base.world import (
    World,
    barrier,
    broadcast_floats,
    init_process_group,
    leave_process_group,
    sum_floats,
    world_from_environment,
)

RANK_KEYS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def test_a_plain_process_is_a_world_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in RANK_KEYS:
        monkeypatch.delenv(key, raising=False)
    world = world_from_environment()
    assert world == World(rank=0, size=1, local_rank=0) and world.is_main


def test_a_rank_reads_its_place_from_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in zip(RANK_KEYS, ("3", "8", "1"), strict=True):
        monkeypatch.setenv(key, value)
    world = world_from_environment()
    assert world == World(rank=3, size=8, local_rank=1) and not world.is_main


def test_collectives_of_a_world_of_one_join_no_group() -> None:
    world = World()
    init_process_group(world, "cpu")
    barrier(world)
    values = [1.5, -2.0, 1e300]
    assert broadcast_floats(world, values, "cpu") == values
    assert sum_floats(world, values, "cpu") == values
    leave_process_group(world)
    assert not dist.is_initialized()
