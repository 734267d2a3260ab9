"""What a number was measured on: processor, cores, memory, versions."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "numpy", "constriction", "numba", "sentencepiece", "zstandard", "brotli")


def describe_machine() -> dict[str, Any]:
    """Return the hardware that this process may use, as plain JSON values."""
    return {
        "cpu": _cpu_name(),
        "cores": num_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def num_cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def has_native_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16 in hardware; without that it is slow."""
    return any(
        line.startswith(("flags", "Features"))
        and not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(line.split())
        for line in Path("/proc/cpuinfo").read_text().splitlines()
    )


def process_peak_bytes() -> int:
    """Return the most memory that this process has held so far.

    Not ru_maxrss: in it a process is born with the peak of the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def describe_versions() -> dict[str, str]:
    """Return the versions of Python, parbyte and the packages that numbers depend on."""
    versions = {"python": platform.python_version()}
    for name in ("parbyte", *_PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
