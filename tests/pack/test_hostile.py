"""Damaged and hostile artifacts: an ArtifactError of one line, never anything else."""

import copy
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.harness import watched
from tests.pack.conftest import WAYS

from parbyte.base.errors import ArtifactError
from parbyte.model.config import ModelConfig
from parbyte.pack.artifact import inspect_artifact, load_artifact
from parbyte.pack.container import FRAME_BYTES, read_container, write_container
from parbyte.pack.header import expected_shapes

MUTATIONS = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def sealed(data: bytes) -> bytes:
    """The same bytes with a digest that fits: what an attacker would send."""
    if len(data) < FRAME_BYTES:
        return data
    return data[:8] + hashlib.sha256(data[:8] + data[40:]).digest() + data[40:]


def refusal(data: bytes, path: Path) -> str | None:
    """The error of loading these bytes, or None; any exception but ArtifactError escapes."""
    path.write_bytes(data)
    try:
        load_artifact(path)
    except ArtifactError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return str(error)
    return None


def edited(artifact_bytes: bytes, edit: Callable[[dict[str, Any]], Any]) -> bytes:
    container = read_container(artifact_bytes)
    header = copy.deepcopy(container.header)
    edit(header)
    return write_container(header, bytes(container.payload))


def test_a_cut_at_every_byte_is_refused(artifact_bytes: bytes) -> None:
    for length in range(len(artifact_bytes)):
        with pytest.raises(ArtifactError):
            read_container(artifact_bytes[:length])


def test_a_flip_of_any_byte_is_refused(artifact_bytes: bytes) -> None:
    damaged = bytearray(artifact_bytes)
    for position in range(len(damaged)):
        damaged[position] ^= 0x10
        with pytest.raises(ArtifactError):
            read_container(bytes(damaged))
        damaged[position] ^= 0x10


@MUTATIONS
@given(
    position=st.integers(0, 10**6),
    inserted=st.binary(max_size=9),
    how=st.sampled_from(["flip", "cut", "insert", "replace"]),
)
def test_a_resealed_mutation_is_refused_or_loads(
    position: int, inserted: bytes, how: str, any_artifact_path: Path
) -> None:
    data = bytearray(any_artifact_path.read_bytes())
    position %= len(data)
    if how == "flip":
        data[position] ^= inserted[0] if inserted else 1
    elif how == "cut":
        del data[position:]
    elif how == "insert":
        data[position:position] = inserted
    else:
        data[position : position + len(inserted)] = inserted
    refusal(sealed(bytes(data)), any_artifact_path.with_suffix(".mutant"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=5,
)


@MUTATIONS
@given(data=st.data(), value=JSON | st.integers(-2, 2**64) | st.sampled_from(["raw", "zstd", ""]))
def test_any_value_anywhere_in_the_header_is_refused_or_loads(
    data: st.DataObject, value: Any, any_artifact_path: Path
) -> None:
    container = read_container(any_artifact_path.read_bytes())
    header = copy.deepcopy(container.header)
    node: Any = header
    while True:
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(node[key], dict | list) and node[key]) or data.draw(st.booleans()):
            break
        node = node[key]
    if data.draw(st.booleans()):
        node[key] = value
    else:
        del node[key]
    mutant = write_container(header, bytes(container.payload))
    refusal(mutant, any_artifact_path.with_suffix(".mutant"))


def embed(header: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in header["tensors"] if row["name"] == "embed.table")


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "impossible shape": lambda h: embed(h).update(shape=[2**20, 2**20]),
    "'shape' in its header": lambda h: embed(h).update(shape=[-1, 32]),
    "has no shape": lambda h: embed(h).update(shape=[32, 257]),
    "'offset' in its header": lambda h: embed(h)["values"].__setitem__(1, -4),
    "'length' in its header": lambda h: embed(h)["values"].__setitem__(2, 2**40),
    "leave a gap": lambda h: embed(h)["values"].__setitem__(1, 10**6),
    "overlap": lambda h: embed(h)["scale"].__setitem__(1, embed(h)["values"][1]),
    "streams take": lambda h: h["small"].update(stream=["raw", 0, 0]),
    "occurs twice": lambda h: h["small"]["tensors"].append(h["small"]["tensors"][0]),
    "is unknown": lambda h: embed(h).update(name="embed.tabel"),
    "is missing": lambda h: h["small"]["tensors"].pop(),
    "unknown coder": lambda h: embed(h)["values"].__setitem__(0, "pickle"),
    "has 9 bits": lambda h: embed(h).update(bits=9),
    "outside its 4-bit grid": lambda h: embed(h).update(bits=4),
    "must have": lambda h: h.update(run="rm -rf"),
    "'model_dim' is 1099511627776": lambda h: h["model"].update(model_dim=2**40),
    "impossible vocabulary": lambda h: h["model"].update(vocab_size=0, bos_id=0),
    "impossible vocabulary of 65,537": lambda h: h["model"].update(vocab_size=65_537),
    "num_layers": lambda h: h["model"].update(num_layers=1000),
    "fewer tensors than layers": lambda h: h["model"].update(num_layers=60),
    "unknown key 'model.exec'": lambda h: h["model"].update(exec="os.system"),
    "unknown kind": lambda h: h["tokenizer"].update(kind="pickle"),
    "bos": lambda h: h["model"].update(bos_id=1),
    "'tokenizer.bytes'": lambda h: h["tokenizer"].update(bytes=2**50),
}


@pytest.mark.parametrize("reason", EDITS)
def test_a_crafted_header_is_refused_for_its_reason(
    reason: str, artifact_bytes: bytes, tmp_path: Path
) -> None:
    message = refusal(edited(artifact_bytes, EDITS[reason]), tmp_path / "crafted.parbyte")
    wanted = "disagree on the vocabulary" if reason == "bos" else reason
    assert message is not None and wanted in message


@pytest.mark.parametrize("any_artifact_path", [WAYS[1]], indirect=True)
def test_more_corrections_than_a_recipe_can_ask_for_are_refused(any_artifact_path: Path) -> None:
    def correct_all(header: dict[str, Any]) -> None:
        for row in header["tensors"]:
            if "sparse" in row:
                row["sparse"][0] = math.prod(row["shape"])

    mutant = edited(any_artifact_path.read_bytes(), correct_all)
    message = refusal(mutant, any_artifact_path.with_suffix(".mutant"))
    assert message is not None and "corrections of single weights" in message


def test_huge_declarations_take_no_memory(artifact_bytes: bytes, tmp_path: Path) -> None:
    def huge(header: dict[str, Any]) -> None:
        header["model"].update(vocab_size=65_536, model_dim=8192, mlp_dim=2**24)

    def whole_model(header: dict[str, Any]) -> None:
        header["model"].update(model_dim=8192, mlp_dim=2**14)
        config = ModelConfig(**header["model"])
        shapes = {name: list(shape) for name, shape in expected_shapes(config).items()}
        for row in header["tensors"]:
            row["shape"] = shapes[row["name"]]
        for row in header["small"]["tensors"]:
            row[1] = shapes[row[0]]

    def vast_tensor(header: dict[str, Any]) -> None:
        embed(header).update(shape=[2**31])

    for edit in (huge, whole_model, vast_tensor):
        with watched():
            message = refusal(edited(artifact_bytes, edit), tmp_path / "huge.parbyte")
        assert message is not None
        assert any(word in message for word in ("credible", "impossible", "no shape"))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"null", b'{"a":NaN}', b'{"a":1e999}', b'{"a":1,"a":2}', b"[" * 100_000, b"\xff"],
)
def test_a_header_that_is_no_sound_json_object_is_refused(text: bytes, tmp_path: Path) -> None:
    lengths = len(text).to_bytes(4, "little") * 2
    data = sealed(b"parbyte\x01" + bytes(32) + b"\0" + lengths + text)
    message = refusal(data, tmp_path / "json.parbyte")
    assert message is not None and "header" in message


def test_a_header_length_beyond_the_file_or_the_bound_is_refused(
    artifact_bytes: bytes, tmp_path: Path
) -> None:
    for at in (41, 45):
        data = bytearray(artifact_bytes)
        data[at : at + 4] = (2**32 - 1).to_bytes(4, "little")
        message = refusal(sealed(bytes(data)), tmp_path / "length.parbyte")
        assert message is not None and "header length" in message


def test_foreign_files_are_named_for_what_they_are(artifact_bytes: bytes, tmp_path: Path) -> None:
    newer = bytearray(artifact_bytes)
    newer[7] = 9
    path = tmp_path / "x.parbyte"
    assert "format version 9" in str(refusal(bytes(newer), path))
    assert "is no parbyte artifact" in str(refusal(b"", path))
    assert "is no parbyte artifact" in str(refusal(b"PK\x03\x04 zip", path))
    assert "does not match" in str(refusal(artifact_bytes + b"\0", path))
    for foreign in (tmp_path / "absent", tmp_path):
        for reader in (load_artifact, inspect_artifact):
            with pytest.raises(ArtifactError, match="cannot read"):
                reader(foreign)
