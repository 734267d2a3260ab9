"""The portable engine's machine code for a processor without extensions writes the same bytes.

One process does all of it: its kernels are compiled once, for that processor and with less effort.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import toy_model

from parbyte.base.log import Console
from parbyte.base.settings import to_table
from parbyte.codec.compress import compress_file
from parbyte.codec.config import CodecConfig
from parbyte.pack.artifact import build_artifact
from parbyte.pack.config import PackConfig
from parbyte.predict.adapter_config import TTTConfig
from parbyte.quant.config import QuantConfig
from parbyte.text.byte_tokenizer import ByteTokenizer

LANES = 2
THREADS = {"plain": [1, 2, 7], "learning": [2]}
STACKS = {"plain": [], "learning": [to_table(TTTConfig(lr=0.02, embed_lr=0.03, scalar_lr=0.01))]}
PARTS = {
    "vocab_size": 257, "bos_id": 256, "model_dim": 24, "num_heads": 3, "num_kv_heads": 3,
    "smear": "static", "logit_scale": 4.0, "logit_bias": True,
}  # fmt: skip
TEXT = b"".join(b"%d And God said, Let there be light.\n" % i for i in range(60))
WORKER = """
import hashlib, json, sys
from pathlib import Path
import torch
from parbyte.base.log import Console
from parbyte.codec.compress import compress_file, decompress_file
from parbyte.codec.config import CodecConfig
hashes, lanes = [], int(sys.argv[1])
for name, numbers in json.loads(sys.argv[2]).items():
    folder = Path(name)
    artifact, text, packed = (folder / name for name in ("model.parbyte", "text", "text.pby"))
    for threads in numbers:
        config = CodecConfig(lanes=lanes, threads=threads)
        compress_file(artifact, text, folder / "out", config, Console(quiet=True))
        hashes.append(hashlib.sha256((folder / "out").read_bytes()).hexdigest())
        torch.set_num_threads(threads)
        decompress_file(artifact, packed, folder / "out", Console(quiet=True))
        assert (folder / "out").read_bytes() == text.read_bytes()
print(json.dumps(hashes))
"""


def write_files(folder: Path, stack: list[dict[str, object]]) -> Path:
    """Leave an artifact, a text, and the text packed here by one thread."""
    folder.mkdir()
    model = toy_model(**PARTS)
    settings = {"window": 16, "stride": 8, "engine": "portable", "stack": stack}
    pack = PackConfig(fit=False, coders=("range",))
    weights, tokenizer = dict(model.state_dict()), ByteTokenizer()
    data = build_artifact(
        weights, model.config, tokenizer, settings, QuantConfig(), pack, 1_000_000, {}
    )
    (folder / "model.parbyte").write_bytes(data)
    (folder / "text").write_bytes(TEXT)
    names = (folder / name for name in ("model.parbyte", "text", "text.pby"))
    compress_file(*names, CodecConfig(lanes=LANES, threads=1), Console(quiet=True))
    return folder


@pytest.mark.slow
def test_plain_machine_code_writes_the_same_files_and_reads_them(tmp_path: Path) -> None:
    folders = {name: write_files(tmp_path / name, stack) for name, stack in STACKS.items()}
    threads = {str(folders[name]): numbers for name, numbers in THREADS.items()}
    (tmp_path / "code").mkdir()
    plain_machine = {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_OPT": "1",
        "NUMBA_CACHE_DIR": str(tmp_path / "code"),
        "ATEN_CPU_CAPABILITY": "default",
    }
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(LANES), json.dumps(threads)],
        env=plain_machine,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plain, learning = (
        hashlib.sha256((folders[name] / "text.pby").read_bytes()).hexdigest() for name in THREADS
    )
    assert json.loads(done.stdout) == [plain, plain, plain, learning]
    assert plain != learning
