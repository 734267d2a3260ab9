"""The recipe's [predict] section: how the model walks over a text, and what stands on top of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parbyte.base.settings import require, setting
from parbyte.predict.adapter_config import ADAPTED_ROWS, NETWORK_STAGES, TORCH_STAGES
from parbyte.predict.expert_config import ROW_STAGES, NgramConfig

STACK: Mapping[str, type] = {**NETWORK_STAGES, **ADAPTED_ROWS, **ROW_STAGES}
"""Kind -> settings of every stage that `predict.stack` may list."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Window, stride and engine of the neural predictor (law: predict.neural), and its stack."""

    window: int = setting(
        1024, low=1, high=1 << 20, unit="tokens", doc="longest span the model sees at once"
    )
    stride: int = setting(
        512, low=1, high=1 << 20, unit="tokens", doc="tokens predicted between two window moves"
    )
    engine: str = setting(
        "torch",
        choices=("torch", "portable"),
        doc="arithmetic of codec and score; portable: the same bits on every machine",
    )
    dtype: str = setting(
        "float32",
        choices=("float32", "bfloat16"),
        doc="of the torch engine's activations, matrices and cache; part of the law",
    )
    carry: bool = setting(
        False, doc="keep the window's keys and values as it moves (predict.carried), not anew"
    )
    stack: tuple[Any, ...] = setting(
        (), kinds=STACK, doc="stages over the network, the lowest first; each names its `kind`"
    )

    def __post_init__(self) -> None:
        require(
            self.stride <= self.window,
            "predict.stride",
            got=self.stride,
            want=f"at most predict.window ({self.window})",
        )
        require(
            self.dtype == "float32" or self.engine == "torch",
            "predict.dtype",
            got=self.dtype,
            want="float32 with the portable engine",
        )
        adapts = bool(self.stack) and self.stack[0].kind in NETWORK_STAGES
        require(
            not self.carry or (self.engine == "torch" and not adapts),
            "predict.carry",
            got=self.carry,
            want="false with engine = 'portable' or a stage that adapts the network",
        )
        for place, stage in enumerate(self.stack):
            require(
                place == 0 or stage.kind not in NETWORK_STAGES,
                f"predict.stack[{place}]",
                got=stage.kind,
                want="the first stage: it adapts the network itself",
            )
            require(
                self.engine == "torch" or stage.kind not in TORCH_STAGES,
                "predict.engine",
                got=self.engine,
                want=f"'torch' with a stage '{stage.kind}' in predict.stack",
            )
            counts_chunks = isinstance(stage, NgramConfig) and stage.learn == "chunk"
            require(
                self.engine == "torch" or not counts_chunks,
                f"predict.stack[{place}].learn",
                got="chunk",
                want=f"'token' with predict.engine = '{self.engine}'",
            )
