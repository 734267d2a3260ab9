"""The recipe's [pack] table: which entropy coders compete, and whether to fit the cap."""

from dataclasses import dataclass

from parbyte.base.settings import require, setting


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How codes become a file. The cap itself comes from the track."""

    fit: bool = setting(False, doc='choose the rate that fits the cap: clip = "std" spends it all')
    prune: bool = setting(
        False, doc="a file over the cap is trimmed: the cheapest codes of +-1 become 0"
    )
    coders: tuple[str, ...] = setting(
        ("mix", "range", "zstd", "lzma", "brotli"),
        choices=("mix", "range", "zstd", "lzma", "brotli"),
        doc="coders that compete for each stream; the smallest result is kept",
    )

    prior_bytes: int = setting(
        0,
        low=0,
        high=1 << 24,
        unit="bytes",
        doc="of the file for training text, from which the stages that count begin",
    )

    def __post_init__(self) -> None:
        require(
            len(self.coders) > 0, "pack.coders", got=list(self.coders), want="at least one coder"
        )
        require(
            not (self.fit and self.prune), "pack.prune", got=True, want="false with pack.fit = true"
        )
