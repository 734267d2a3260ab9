"""A number carries the machine and the versions it was made with."""

import json

from parbyte.base.machine import describe_machine, describe_versions


def test_the_machine_is_described_in_plain_json() -> None:
    machine = describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["cores"] >= 1 and machine["memory_bytes"] > 10**8 and machine["cpu"]


def test_versions_name_python_and_the_coders() -> None:
    versions = describe_versions()
    assert {"python", "parbyte", "torch", "numpy", "constriction"} <= versions.keys()
    assert all(isinstance(version, str) and version for version in versions.values())
