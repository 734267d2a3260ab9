"""Make the toys that several test files here share importable by name."""

import importlib.util
import sys
from pathlib import Path

_HERE = Path(__file__).parent


def _make_importable(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)


_make_importable(_HERE.parent / "audit" / "twins.py")
_make_importable(_HERE / "toys.py")
