"""What this machine can do: cores, memory, GPUs, speed of a matrix product, packages, disk."""

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from parbyte.base.clock import Stopwatch
from parbyte.base.machine import describe_machine, describe_versions
from parbyte.cli.entry import DONE
from parbyte.cli.options import JsonOption, QuietOption
from parbyte.cli.output import Row, emit

_OPTIONAL = {"huggingface_hub": "hub", "pyarrow": "hub", "triton": "torch for CUDA"}
_CPU_SIZE, _CUDA_SIZE = 1024, 8192
_MEASURE_S = 0.5


def doctor(as_json: JsonOption = False, quiet: QuietOption = False) -> int:
    """Show what this machine can do, with a quick speed test."""
    import torch

    machine = describe_machine()
    speeds = {"cpu float32": _tflops(torch.float32, "cpu", _CPU_SIZE)}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if gpus:
        speeds["cuda bfloat16"] = _tflops(torch.bfloat16, "cuda", _CUDA_SIZE)
    result = {
        "machine": machine,
        "gpus": gpus,
        "matmul_tflops": speeds,
        "threads": torch.get_num_threads(),
        "versions": describe_versions(),
        "optional": {name: _version(name) for name in _OPTIONAL},
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
    }
    emit(result, _rows(result), as_json=as_json)
    return DONE


def _rows(result: dict[str, Any]) -> list[Row]:
    machine = result["machine"]
    rows: list[Row] = [
        ("processor", machine["cpu"], f"{machine['cores']} cores, {result['threads']} threads"),
        ("memory", f"{machine['memory_bytes'] / 2**30:.1f} GiB", ""),
        ("disk", f"{result['disk_free_bytes'] / 2**30:.1f} GiB free", str(Path.cwd())),
        ("GPUs", str(len(result["gpus"])), ", ".join(result["gpus"])),
    ]
    for kind, tflops in result["matmul_tflops"].items():
        rows.append(("matrix product", f"{tflops:.2f} TFLOP/s", kind))
    rows += [(name, version, "") for name, version in result["versions"].items()]
    for name, version in result["optional"].items():
        rows.append((name, version or "not installed", f"optional: {_OPTIONAL[name]}"))
    return rows


def _tflops(dtype: Any, device: str, size: int) -> float:
    """Return the speed of a square matrix product in 10^12 operations a second."""
    import torch

    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)

    def product() -> None:
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    product()
    watch, count = Stopwatch(), 0
    while watch.elapsed_s() < _MEASURE_S:
        product()
        count += 1
    return 2 * size**3 * count / watch.elapsed_s() / 1e12


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
