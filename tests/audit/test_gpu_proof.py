"""A bitstream made on a GPU decodes behind shut doors, its attention kernel compiled there.

Where the network learns from the text, the decoder's gradients must have the encoder's bits.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parbyte.audit.decode import check_decode
from parbyte.base.files import sha256_bytes
from parbyte.base.log import Console
from parbyte.codec.compress import compress_documents
from parbyte.codec.config import CodecConfig
from parbyte.kernels.filled_attention import fits_kernel
from parbyte.model.config import ModelConfig
from parbyte.pack.artifact import load_artifact

pytestmark = pytest.mark.gpu
MODEL = ModelConfig(
    vocab_size=257, bos_id=256, num_layers=2, model_dim=64, num_heads=2, num_kv_heads=1, mlp_dim=96
)
TEXT = b"In the beginning was the Word, and the Word was with God.\n" * 20


@pytest.mark.parametrize(
    ("lanes", "stack"),
    [
        (1, []),
        (4, []),
        (1, [{"kind": "ttt", "lr": 0.01}]),
        (2, [{"kind": "lora", "lr": 0.01, "phases": (400,)}]),
        (1, [{"kind": "slot", "fit": "both"}]),
    ],
)
def test_a_stream_of_a_gpu_is_decoded_behind_shut_doors(
    tmp_path: Path,
    pack_toy: Callable[..., bytes],
    lanes: int,
    stack: list[dict[str, Any]],
) -> None:
    assert fits_kernel(MODEL.num_heads // MODEL.num_kv_heads, MODEL.head_dim)
    settings = {"window": 512, "stride": 64, "engine": "torch", "dtype": "bfloat16", "stack": stack}
    path, bitstream = tmp_path / "model.parbyte", tmp_path / "text.pby"
    path.write_bytes(pack_toy(MODEL, settings, noise=0.1))
    codec = CodecConfig(lanes=lanes, device="cuda")
    compress_documents(load_artifact(path), codec, [TEXT], bitstream, Console(quiet=True))
    text, doors = check_decode(
        path, bitstream, expected_sha256=sha256_bytes(TEXT), expected_bytes=len(TEXT)
    )
    assert (text.findings, doors.findings) == ((), ())
