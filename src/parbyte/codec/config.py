"""The recipe's [codec] section: how text is laid out for coding."""

from dataclasses import dataclass

from parbyte.base.settings import setting


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Lanes, frames and threads; all of them travel in the bitstream."""

    lanes: int = setting(
        8,
        low=1,
        high=1024,
        doc="streams coded side by side: faster, but each starts cold",
    )
    frame_bytes: int = setting(
        8 << 20, low=1, high=1 << 28, unit="bytes", doc="text held in memory and coded at once"
    )
    threads: int = setting(
        1,
        low=1,
        high=256,
        doc="CPU threads of coding, the same in decoding; one step is too small to gain from more",
    )
