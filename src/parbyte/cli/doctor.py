"""What this machine can do: cores, memory, GPUs, matrix products, kernels, a recipe's speed."""

import dataclasses
import shutil
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from parbyte.base.machine import describe_machine, describe_versions
from parbyte.cli.entry import DONE
from parbyte.cli.options import JsonOption, QuietOption, SetOption, refuse_options
from parbyte.cli.output import Row, emit

_OPTIONAL = {"huggingface_hub": "hub", "pyarrow": "hub", "triton": "torch for CUDA"}
_CPU_SIZE, _CUDA_SIZE = 1024, 8192
_BYTE_IDS = 257
_TIMED_STEPS = 3


def doctor(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", help="Also time some training steps of it, without its text."
        ),
    ] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Show what this machine can do, with a quick speed test; of a recipe too, if one is named."""
    if recipe is None:
        refuse_options(context, ("set_",), "belongs to a RECIPE: name one")
    import torch

    from parbyte.train.speed import matmul_flops

    machine = describe_machine()
    speeds = {"cpu float32": matmul_flops(torch.float32, torch.device("cpu"), _CPU_SIZE) / 1e12}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if gpus:
        flops = matmul_flops(torch.bfloat16, torch.device("cuda"), _CUDA_SIZE)
        speeds["cuda bfloat16"] = flops / 1e12
    result = {
        "machine": machine,
        "gpus": gpus,
        "matmul_tflops": speeds,
        "attention": _attention_backends(),
        "kernels": _active_kernels(),
        "threads": torch.get_num_threads(),
        "versions": describe_versions(),
        "optional": {name: _version(name) for name in _OPTIONAL},
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "recipe": None if recipe is None else _recipe_speed(recipe, set_ or []),
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
    rows.append(("attention", ", ".join(result["attention"]), "back ends, by preference"))
    rows.append(("kernels", ", ".join(result["kernels"]), "in training with bfloat16"))
    if result["recipe"] is not None:
        rows += _recipe_rows(result["recipe"])
    rows += [(name, version, "") for name, version in result["versions"].items()]
    for name, version in result["optional"].items():
        rows.append((name, version or "not installed", f"optional: {_OPTIONAL[name]}"))
    return rows


def _recipe_rows(speed: dict[str, Any]) -> list[Row]:
    return [
        ("training", f"{speed[key]:,.0f} tokens/s", f"{speed['recipe']}, {label}")
        for key, label in (
            ("tokens_per_second", "all layers"),
            ("tokens_per_second_before_loop", "before its loop is on"),
        )
        if key in speed
    ] + [("steps", f"{speed['steps_in_budget']:,}", f"in {speed['budget']}")]


def _recipe_speed(source: str, overrides: list[str]) -> dict[str, Any]:
    """Return the speed of some steps of a recipe on made-up tokens, and what its budget allows."""
    from parbyte.recipe import load_recipe
    from parbyte.train.speed import Rehearsal, steps_in_budget

    recipe = load_recipe(source, overrides)
    ids = _BYTE_IDS if recipe.text.tokenizer == "bytes" else recipe.text.vocab_size
    rehearsal = Rehearsal(dataclasses.replace(recipe.model, vocab_size=ids), recipe.train)
    config = recipe.train
    step_s = plain_s = rehearsal.step_seconds(_TIMED_STEPS, is_looping=True)
    speed: dict[str, Any] = {
        "recipe": recipe.name,
        "device": str(rehearsal.device),
        "tokens_per_second": config.batch_tokens / step_s,
    }
    if recipe.model.loop and config.loop_at > 0:
        plain_s = rehearsal.step_seconds(_TIMED_STEPS, is_looping=False)
        speed["tokens_per_second_before_loop"] = config.batch_tokens / plain_s
    speed["steps_in_budget"] = steps_in_budget(config, plain_s, step_s)
    speed["budget"] = f"{config.steps:,} steps" if config.steps else f"{config.seconds:g} s"
    return speed


def _attention_backends() -> list[str]:
    import torch

    from parbyte.kernels.attention import flash_attention_3

    if not torch.cuda.is_available():
        return ["torch CPU"]
    backends = torch.backends.cuda
    enabled = {
        "FlashAttention-3 (training)": flash_attention_3 is not None,
        "cuDNN": backends.cudnn_sdp_enabled(),
        "flash": backends.flash_sdp_enabled(),
        "memory-efficient": backends.mem_efficient_sdp_enabled(),
        "math": backends.math_sdp_enabled(),
    }
    return [name for name, is_on in enabled.items() if is_on]


def _active_kernels() -> list[str]:
    import torch

    from parbyte.kernels.loss import fuses_on_this_machine as fuses_loss
    from parbyte.kernels.mlp import fuses_on_this_machine as fuses_mlp

    active = {"fused loss": fuses_loss(), "fused MLP": fuses_mlp()}
    on_gpus = ("fused heads", "attention by documents")
    active |= dict.fromkeys(on_gpus, torch.cuda.is_available())
    return [name for name, is_on in active.items() if is_on] or ["torch alone"]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
