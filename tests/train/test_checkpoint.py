from pathlib import Path

import pytest
import torch

from parbyte.base.errors import DataError, ResourceError
from parbyte.train import checkpoint
from parbyte.train.checkpoint import (
    Progress,
    find_checkpoint,
    load_progress,
    remove_checkpoints,
    restore_,
    save_checkpoint,
)


def progress_at(step: int) -> Progress:
    return Progress(
        fingerprint="f",
        step=step,
        elapsed_s=1.5,
        loader={"row": 8},
        recent_losses=[2.0, 1.0],
        qat_from=None,
    )


def tensors_of(value: float) -> dict[str, torch.Tensor]:
    return {"model.w": torch.full((2, 3), value), "optimizer.step": torch.tensor(value)}


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, progress_at(10), tensors_of(0.1))
    folder = find_checkpoint(tmp_path)
    assert folder is not None and load_progress(folder) == progress_at(10)
    live = tensors_of(0.0)
    restore_(folder, live)
    assert all(torch.equal(live[name], t) for name, t in tensors_of(0.1).items())


def test_the_one_before_goes_when_the_new_one_is_whole(tmp_path: Path) -> None:
    for step in (9, 10, 123_456_789):
        save_checkpoint(tmp_path, progress_at(step), tensors_of(step))
    assert [path.name for path in tmp_path.iterdir()] == ["step-123456789"]


def test_a_kill_while_writing_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, progress_at(1), tensors_of(1))
    # As a killed process would leave it: tensors written, nothing renamed.
    (tmp_path / ".step-00000002.part").mkdir()
    (tmp_path / ".step-00000002.part" / "tensors.safetensors").write_bytes(b"half")
    folder = find_checkpoint(tmp_path)
    assert folder is not None and load_progress(folder).step == 1
    save_checkpoint(tmp_path, progress_at(2), tensors_of(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_full_disk_leaves_the_one_before_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, progress_at(1), tensors_of(1))

    def refuse(*_: object) -> None:
        raise ResourceError("cannot write: no space left")

    monkeypatch.setattr(checkpoint, "write_json", refuse)
    with pytest.raises(ResourceError):
        save_checkpoint(tmp_path, progress_at(2), tensors_of(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_an_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="choose another path"):
        save_checkpoint(tmp_path / "file", progress_at(1), tensors_of(1))


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path, progress_at(1), tensors_of(1))
    folder = find_checkpoint(tmp_path)
    assert folder is not None
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError):
        load_progress(folder)
        restore_(folder, tensors_of(0))


def test_other_tensors_are_refused_and_nothing_is_copied(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, progress_at(1), tensors_of(1))
    folder = find_checkpoint(tmp_path)
    assert folder is not None
    live = {"model.w": torch.zeros(2, 3), "optimizer.step": torch.zeros(2)}
    with pytest.raises(DataError, match="other tensors"):
        restore_(folder, live)
    assert not live["model.w"].any()


def test_another_format_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, progress_at(1), tensors_of(1))
    path = tmp_path / "step-00000001" / "state.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(DataError, match="another format"):
        load_progress(path.parent)


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, progress_at(1), tensors_of(1))
    (tmp_path / ".step-00000002.part").mkdir()
    remove_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == [] and find_checkpoint(tmp_path) is None
    remove_checkpoints(tmp_path / "absent")
