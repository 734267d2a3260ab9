"""The recipe's [predict] section: how the model walks over a text."""

from dataclasses import dataclass

from parbyte.base.settings import require, setting


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Window, stride and engine of the neural predictor (law: predict.neural)."""

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
