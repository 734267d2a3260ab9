"""pack.round_trip: a sound file survives being coded again, and a difference would be seen."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from parbyte.model.config import ModelConfig
from parbyte.pack import round_trip
from parbyte.pack.artifact import build_artifact
from parbyte.pack.config import PackConfig
from parbyte.pack.entries import TensorEntry
from parbyte.pack.round_trip import check_round_trip
from parbyte.quant.config import QuantConfig
from parbyte.quant.grid import Codes
from parbyte.text.byte_tokenizer import ByteTokenizer

PROBE = torch.arange(20).reshape(2, 10)
WAYS = [
    {},
    {"group": 8, "lqer_rank": 2, "sparse_share": 0.01},
    {"grid": "e8"},
]


@pytest.mark.parametrize("quant", WAYS)
def test_every_kind_of_tensor_survives_being_coded_again(
    quant: dict[str, object],
    weights: dict[str, torch.Tensor],
    model_config: ModelConfig,
    tmp_path: Path,
) -> None:
    config = QuantConfig(**quant)  # type: ignore[arg-type]
    pack = PackConfig(coders=("range", "brotli"))
    data = build_artifact(weights, model_config, ByteTokenizer(), {}, config, pack, 10**6, {})
    path = tmp_path / "model.parbyte"
    path.write_bytes(data)
    checks = check_round_trip(path, PROBE)
    assert checks == {"codes_equal": True, "weights_equal": True, "logits_equal": True}


def test_a_code_that_changes_on_the_way_is_noticed(
    artifact_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded_again = round_trip._coded_again

    def careless(item: Codes, entry: TensorEntry) -> Codes:
        again = coded_again(item, entry)
        codes = again.codes.clone()
        codes.view(-1)[0] += 1 if int(codes.view(-1)[0]) < again.limit else -1
        return replace(again, codes=codes)

    monkeypatch.setattr(round_trip, "_coded_again", careless)
    assert not any(check_round_trip(artifact_path, PROBE).values())
