"""A number carries the machine and the versions it was made with."""

import json
import subprocess
import sys

from parbyte.base.machine import describe_machine, describe_versions, process_peak_bytes


def test_the_machine_is_described_in_plain_json() -> None:
    machine = describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["cores"] >= 1 and machine["memory_bytes"] > 10**8 and machine["cpu"]


def test_versions_name_python_and_the_coders() -> None:
    versions = describe_versions()
    assert {"python", "parbyte", "torch", "numpy", "constriction"} <= versions.keys()
    assert all(isinstance(version, str) and version for version in versions.values())


def test_the_peak_is_that_of_this_process_and_not_of_the_one_that_started_it() -> None:
    code = (
        "from parbyte.base.machine import process_peak_bytes as peak; first = peak();"
        "bytearray(b'x') * (64 << 20); print(first, peak())"
    )
    held = bytearray(b"x") * (256 << 20)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert process_peak_bytes() > len(held)
    first, last = map(int, done.stdout.split())
    assert 60 << 20 < last - first < 80 << 20
    assert last < len(held)
