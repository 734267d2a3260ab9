"""The recipe's [codec] section: how text is laid out for coding."""

from dataclasses import dataclass

from parbyte.base.settings import setting
from parbyte.codec.bitstream import MAX_LANES, MAX_TURNS


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Lanes, frames and threads; all of them travel in the bitstream."""

    lanes: int = setting(
        8,
        low=1,
        high=MAX_LANES,
        doc="streams coded side by side: faster, but each starts cold",
    )
    turns: int = setting(
        0,
        low=0,
        high=MAX_TURNS,
        doc="groups of lanes that take turns between GPU and coder; 0: 2 on a GPU, 1 elsewhere",
    )
    device: str = setting(
        "auto",
        choices=("auto", "cpu", "cuda"),
        doc="of the torch engine in coding and scoring; a bitstream decodes on its own device only",
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
