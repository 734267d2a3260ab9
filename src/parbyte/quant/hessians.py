"""What every matrix of a model is multiplied with: H = mean of x x^T over calibration positions.

A watch stands over the real forward pass: hooks tell it which weights a block is about to use,
and it looks at the inputs of the products. Letters: C columns of a matrix, N positions.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from parbyte.model.attention import BlockWeights
from parbyte.model.gpt import GPT
from parbyte.quant.calibration import Calibration

Hessians = dict[str, Tensor]
_FORWARD_TOKENS = 4096


class _Watch(TorchFunctionMode):
    """Adds up the inputs of the products whose weights it was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: Hessians = {}
        self.weights: dict[int, tuple[str, ...]] = {}
        self.next_product: tuple[str, ...] = ()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear:
            names = self.next_product or self.weights.get(id(args[1]), ())
            if names:
                self.add(args[0], names)
        return func(*args, **(kwargs or {}))

    def add(self, inputs: Tensor, names: tuple[str, ...]) -> None:
        inputs_NC = inputs.detach().flatten(0, -2).float()
        square_CC = (inputs_NC.T @ inputs_NC).double().cpu()
        for name in names:
            self.sums[name] = self.sums.get(name, 0.0) + square_CC


def collect_hessians(model: GPT, calibration: Calibration) -> Hessians:
    """Return float64[C, C] for every matrix that is multiplied with activations, by its name.

    Tables that are only looked up have none: their rows do not mix. The token table has one where
    it is the output head too.
    """
    watch = _Watch()
    handles = [
        hook for name, module in model.named_modules() for hook in _hooks(name, module, watch)
    ]
    head = "embed.table" if model.head is None else "head"
    rows = max(1, _FORWARD_TOKENS // calibration.windows_WT.shape[1])
    was_training = model.training
    model.eval()
    try:
        for windows_BT in calibration.windows_WT.split(rows):
            with torch.no_grad(), watch:
                hidden = model.hidden(windows_BT)
            watch.add(hidden, (head,))
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    num_positions = calibration.windows_WT.numel()
    return {name: total / num_positions for name, total in watch.sums.items()}


def _hooks(name: str, module: nn.Module, watch: _Watch) -> list[Any]:
    """Let the watch know which matrices a module is about to use."""
    if name.startswith("blocks.") and name.count(".") == 1:
        return [module.register_forward_pre_hook(_block_hook(name, watch))]
    if name in ("embed.bigram", "value_embed"):

        def begin(module: nn.Module, args: Any) -> None:
            watch.next_product = (f"{name}.proj",)

        def end(module: nn.Module, args: Any, output: Any) -> None:
            watch.next_product = ()

        return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    return []


def _block_hook(name: str, watch: _Watch) -> Callable[[nn.Module, Any], None]:
    def begin(module: nn.Module, args: Any) -> None:
        weights = next(item for item in args if isinstance(item, BlockWeights))
        watch.weights = {
            id(weights.qkv): (f"{name}.attn.q", f"{name}.attn.k", f"{name}.attn.v"),
            id(weights.out): (f"{name}.attn.out",),
            id(weights.up): (f"{name}.mlp.up",),
            id(weights.down): (f"{name}.mlp.down",),
        }

    return begin
