"""Fetching FineWeb from a hub: here a small server on the loopback address."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

import numpy as np
import pytest

from parbyte.base.errors import DataError, ResourceError
from parbyte.text.hub import download_fineweb
from parbyte.text.shards import HEADER_BYTES, ShardWriter

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATASET = "datasets/datasets/fineweb10B_sp1024"
MODEL = "datasets/tokenizers/fineweb_1024_bpe.model"


class Hub(ThreadingHTTPServer):
    """Serves `files` as a dataset repository, counting what is asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.wrong_hash: set[str] = set()
        self.cut_once: dict[str, int] = {}
        self.gets: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sha256(self, path: str) -> str:
        return "0" * 64 if path in self.wrong_hash else hashlib.sha256(self.files[path]).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.headers["Content-Type"].startswith("application/json"):
            paths = json.loads(body)["paths"]
        else:
            paths = parse_qs(body)["paths"]
        hub = self.server
        found = [
            {
                "type": "file",
                "path": path,
                "oid": "0" * 40,
                "size": len(hub.files[path]),
                "lfs": {"oid": hub.sha256(path), "size": len(hub.files[path]), "pointerSize": 130},
            }
            for path in paths
            if path in hub.files
        ]
        self._answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def do_HEAD(self) -> None:
        self._file(with_body=False)

    def do_GET(self) -> None:
        self._file(with_body=True)

    def _file(self, *, with_body: bool) -> None:
        hub = self.server
        path = unquote(self.path).split("/resolve/main/", 1)[-1]
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if path not in hub.files:
            self._answer(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
            return
        data = hub.files[path]
        headers["ETag"] = f'"{hub.sha256(path)}"'
        status, start = 200, 0
        if with_body:
            hub.gets.append((path, self.headers.get("Range")))
            if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                status, start = 206, int(match.group(1))
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = hub.cut_once.pop(path, None) if with_body else None
        self._answer(status, data[start:], headers, with_body=with_body, cut=cut)

    def _answer(
        self,
        status: int,
        data: bytes,
        headers: dict[str, str],
        *,
        with_body: bool = True,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True


def shard(folder: Path, ids: list[int]) -> bytes:
    with ShardWriter(folder, "one", 10**6) as writer:
        writer.append(np.array(ids, np.uint16))
    return writer.paths[0].read_bytes()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    manifest = {
        "version": "10B",
        "datasets": [
            {
                "name": "fineweb10B_sp1024",
                "tokenizer_name": "sp_bpe_1024",
                "stats": {"files_train": 3, "files_val": 1},
            }
        ],
        "tokenizers": [
            {
                "name": "sp_bpe_1024",
                "model_path": "tokenizers/fineweb_1024_bpe.model",
                "vocab_path": "tokenizers/fineweb_1024_bpe.vocab",
            }
        ],
    }
    server.files["datasets/manifest.json"] = json.dumps(manifest).encode()
    server.files[MODEL] = b"model"
    server.files[MODEL.replace(".model", ".vocab")] = b"vocab"
    server.files[f"{DATASET}/fineweb_val_000000.bin"] = shard(tmp_path / "made", [1, 5, 6])
    for index in range(3):
        data = shard(tmp_path / "made", [1, *range(2000 + index)])
        server.files[f"{DATASET}/fineweb_train_{index:06d}.bin"] = data
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_validation_first_train_shards_and_tokenizer_arrive_whole(hub: Hub, tmp_path: Path) -> None:
    found = download_fineweb("sp1024", tmp_path / "data", 2, endpoint=hub.url)
    names = sorted(path.name for path in found.shards.iterdir())
    assert names == [
        "fineweb_train_000000.bin",
        "fineweb_train_000001.bin",
        "fineweb_val_000000.bin",
    ]
    for name in names:
        assert (found.shards / name).read_bytes() == hub.files[f"{DATASET}/{name}"]
    assert found.tokenizer.read_bytes() == b"model"


def test_what_is_there_and_whole_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    download_fineweb("sp1024", tmp_path, 1, endpoint=hub.url)
    hub.gets.clear()
    download_fineweb("sp1024", tmp_path, 2, endpoint=hub.url)
    assert [path for path, _ in hub.gets] == [f"{DATASET}/fineweb_train_000001.bin"]


def test_a_file_damaged_on_disk_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    found = download_fineweb("sp1024", tmp_path, 1, endpoint=hub.url)
    victim = found.shards / "fineweb_train_000000.bin"
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    download_fineweb("sp1024", tmp_path, 1, endpoint=hub.url)
    assert victim.read_bytes() == hub.files[f"{DATASET}/fineweb_train_000000.bin"]


def test_a_cut_download_is_resumed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    path = f"{DATASET}/fineweb_train_000000.bin"
    hub.cut_once[path] = 1500
    found = download_fineweb("sp1024", tmp_path, 1, endpoint=hub.url)
    assert (found.shards / "fineweb_train_000000.bin").read_bytes() == hub.files[path]
    assert [asked for name, asked in hub.gets if name == path] == [None, "bytes=1500-"]


def test_a_file_that_never_matches_its_hash_is_refused_and_removed(
    hub: Hub, tmp_path: Path
) -> None:
    path = f"{DATASET}/fineweb_val_000000.bin"
    hub.wrong_hash.add(path)
    with pytest.raises(DataError, match="arrived damaged twice"):
        download_fineweb("sp1024", tmp_path, 1, endpoint=hub.url)
    assert not (tmp_path / path).exists()


def test_a_file_that_is_no_shard_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files[f"{DATASET}/fineweb_val_000000.bin"] = bytes(HEADER_BYTES)
    with pytest.raises(DataError, match="magic number"):
        download_fineweb("sp1024", tmp_path, 1, endpoint=hub.url)


def test_a_changed_manifest_is_not_taken_from_the_folder(hub: Hub, tmp_path: Path) -> None:
    download_fineweb("sp1024", tmp_path, 1, endpoint=hub.url)
    changed = hub.files["datasets/manifest.json"].replace(b'"files_train": 3', b'"files_train": 1')
    hub.files["datasets/manifest.json"] = changed
    with pytest.raises(DataError, match=r"ask for 1\.\.1"):
        download_fineweb("sp1024", tmp_path, 2, endpoint=hub.url)


@pytest.mark.parametrize(
    ("variant", "num_train_shards", "message"),
    [
        ("sp9999", 1, "no variant 'sp9999'; it has sp1024"),
        ("sp1024", 4, r"ask for 1\.\.3"),
        ("sp1024", 0, r"ask for 1\.\.3"),
    ],
)
def test_wrong_wishes_are_named(
    hub: Hub, tmp_path: Path, variant: str, num_train_shards: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        download_fineweb(variant, tmp_path, num_train_shards, endpoint=hub.url)


def test_a_manifest_cannot_name_files_outside_the_folder(hub: Hub, tmp_path: Path) -> None:
    data = hub.files["datasets/manifest.json"]
    hub.files["datasets/manifest.json"] = data.replace(b"tokenizers/fine", b"../../evil/fine")
    with pytest.raises(DataError, match="outside its folder"):
        download_fineweb("sp1024", tmp_path / "data", 1, endpoint=hub.url)


def test_a_shard_that_the_hub_lacks_is_named(hub: Hub, tmp_path: Path) -> None:
    del hub.files[f"{DATASET}/fineweb_train_000001.bin"]
    with pytest.raises(DataError, match=r"has no file '.*train_000001\.bin'"):
        download_fineweb("sp1024", tmp_path, 2, endpoint=hub.url)


def test_no_server_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(ResourceError, match="cannot fetch from 'willdepueoai/parameter-golf'"):
        download_fineweb("sp1024", tmp_path, 1, endpoint="http://127.0.0.1:9")


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub.utils", None)
    with pytest.raises(ResourceError, match=r"pip install 'parbyte\[hub\]'"):
        download_fineweb("sp1024", tmp_path, 1)
