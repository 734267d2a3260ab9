"""Make the toys that several test files here share importable by name."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def _make_importable(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)


_make_importable(_HERE.parent / "audit" / "twins.py")
_make_importable(_HERE / "toys.py")


@pytest.fixture(scope="session")
def plain_machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a processor without extensions, and of a compiler that tries less."""
    return {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_OPT": "1",
        "NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("code")),
        "ATEN_CPU_CAPABILITY": "default",
    }
