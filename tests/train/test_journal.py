import json
from pathlib import Path

import pytest

from parbyte.base.errors import ResourceError
from parbyte.train.journal import Journal, LogLine


def line_at(step: int, loss: float = 2.0) -> LogLine:
    return LogLine(
        step=step, seconds=step / 3, loss=loss, lr=0.02, qat=False, tokens_per_s=1e4, dev_bpb=None
    )


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_are_appended_as_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log.jsonl", 0)
    journal.append(line_at(1))
    table = json.loads((tmp_path / "log.jsonl").read_text())
    assert list(table) == ["step", "seconds", "loss", "lr", "qat", "tokens_per_s", "dev_bpb"]
    assert table["seconds"] == 0.3333333333 and table["dev_bpb"] is None


def test_a_resumed_run_forgets_what_it_will_do_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    journal = Journal(path, 0)
    for step in (1, 2, 3):
        journal.append(line_at(step))
    with path.open("a") as stream:
        stream.write('{"step": 4, "sec')
    Journal(path, 2).append(line_at(3))
    assert steps_in(path) == [1, 2, 3]


def test_a_new_run_starts_an_empty_log(tmp_path: Path) -> None:
    Journal(tmp_path / "log.jsonl", 0).append(line_at(7))
    Journal(tmp_path / "log.jsonl", 0)
    assert steps_in(tmp_path / "log.jsonl") == []


def test_an_unwritable_log_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(ResourceError):
        Journal(tmp_path / "log.jsonl", 0).append(line_at(1))
