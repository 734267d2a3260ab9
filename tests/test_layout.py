"""The firewalls between the rooms, checked on the syntax tree of every source file.

A rule is a function from one source file to its complaints. Each rule runs over the whole package,
and each is shown snippets that break it (it must complain) and snippets that do not (it must not).
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "parbyte"
ROOMS = ["base", "text", "kernels", "model", "train", "quant", "pack", "predict", "score", "codec"]
ROOMS += ["claims", "audit", "report"]
TOP = ["__init__", "__main__", "recipe", "track", "run_folder", "pipeline", "stages", "scorecard"]
TOP += ["scoring", "seed", "cli"]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True)
class Source:
    """One source file: its path inside the package, its text, and the tree made of it."""

    path: str
    text: str

    @property
    def room(self) -> str:
        return self.path.split("/")[0].removesuffix(".py")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything that a file imports, absolute form."""
    folder = ["parbyte", *source.path.split("/")[:-1]]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def rooms_imported(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, room) of every import from inside the package."""
    for line, name in imports(source):
        parts = name.split(".")
        if parts[0] == "parbyte" and len(parts) > 1 and not parts[1].startswith("__"):
            yield line, parts[1]


def packages_imported(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, first name) of every import."""
    yield from ((line, name.split(".")[0]) for line, name in imports(source))


def dotted_names(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, "a.b.c") of every attribute chain that starts at a plain name."""
    for node in ast.walk(source.tree):
        parts: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name):
            yield getattr(node, "lineno", 0), ".".join([inner.id, *reversed(parts)])


def used(source: Source, banned: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, name) where a banned dotted name is imported or reached as an attribute."""
    for line, name in [*imports(source), *dotted_names(source)]:
        if name in banned:
            yield line, name


Rule = Callable[[Source], list[str]]


def imports_go_left(source: Source) -> list[str]:
    order = {room: place for place, room in enumerate(ROOMS)} | dict.fromkeys(TOP, len(ROOMS))
    if source.room not in order:
        return [f"'{source.room}' is no room: add it to ROOMS or TOP here and to README's tree"]
    return [
        f"line {line}: {source.room} may not import {room}, which stands to its right"
        for line, room in rooms_imported(source)
        if order.get(room, -1) > order[source.room]
    ]


# fenced room -> who may import it, besides itself (and tests and benchmarks, which are no package)
FENCES = {"claims": r"seed/.*", "seed": r"cli/seed_commands\.py"}


def claims_stay_fenced(source: Source) -> list[str]:
    return [
        f"line {line}: only {FENCES[room]} may import {room}"
        for line, room in rooms_imported(source)
        if room in FENCES and source.room != room and not re.fullmatch(FENCES[room], source.path)
    ]


def nothing_is_pickled(source: Source) -> list[str]:
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = [(line, name) for line, name in packages_imported(source) if name in banned]
    found += used(source, {"torch.load", "torch.save", "torch.serialization"})
    for node in ast.walk(source.tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append((node.value.lineno, node.arg))
    return [
        f"line {line}: {name}: tensors go to safetensors, values to JSON" for line, name in found
    ]


def environment_is_read_in_one_file(source: Source) -> list[str]:
    if source.path == "base/world.py":
        return []
    found = used(
        source, {f"os.{n}" for n in ("environ", "environb", "getenv", "getenvb", "putenv")}
    )
    return [
        f"line {line}: {name}: only base/world.py reads the environment" for line, name in found
    ]


def clock_is_read_in_one_file(source: Source) -> list[str]:
    if source.path == "base/clock.py":
        return []
    found = [(line, name) for line, name in packages_imported(source) if name in ("time", "timeit")]
    stamps = {f"datetime.{name}" for name in ("now", "utcnow", "today")} | {"date.today"}
    found += used(source, stamps | {f"datetime.{name}" for name in stamps})
    return [f"line {line}: {name}: take time from base.clock" for line, name in found]


def predictors_never_know_the_answer(source: Source) -> list[str]:
    if source.room not in ("predict", "codec"):
        return []
    return [
        f"line {number}: the word 'target' has no place in {source.room}/: nothing there has one"
        for number, line in enumerate(source.text.splitlines(), 1)
        if "target" in line.lower()
    ]


def only_the_console_prints(source: Source) -> list[str]:
    if source.room == "cli" or source.path == "base/log.py":
        return []
    return [
        f"line {node.lineno}: print: say it through base.log.Console, or return it to cli"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name) and node.id == "print"
    ]


def files_stay_short(source: Source) -> list[str]:
    lines = len(source.text.splitlines())
    return [f"{lines} lines, {MAX_FILE_LINES} allowed: split it"] if lines > MAX_FILE_LINES else []


def functions_stay_short(source: Source) -> list[str]:
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                rule = f"{lines} lines, {MAX_FUNCTION_LINES} allowed: split it"
                found.append(f"line {node.lineno}: {node.name} has {rule}")
    return found


def modules_say_what_they_are_for(source: Source) -> list[str]:
    has_docstring = ast.get_docstring(source.tree)
    return [] if has_docstring else ["no docstring: say in one sentence what the file is for"]


def only_here(package: str, places: str) -> Rule:
    """Make the rule that a package is imported only in files whose path matches a pattern."""

    def rule(source: Source) -> list[str]:
        if re.fullmatch(places, source.path):
            return []
        found = [line for line, name in packages_imported(source) if name == package]
        return [f"line {line}: {package} may be imported in {places} only" for line in found]

    rule.__name__ = f"{package}_stays_in_its_place"
    return rule


triton_stays_in_kernels = only_here("triton", r"kernels/.*")
matplotlib_stays_in_figures = only_here("matplotlib", r"report/figures\.py")
sentencepiece_stays_in_text = only_here(
    "sentencepiece", r"text/(sentencepiece\w*|official|tokenizer_training)\.py"
)
numba_stays_behind_its_door = only_here("numba", r"kernels/portable/jit\.py")

LONG_FUNCTION = "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES

# rule -> (snippets that break it, snippets that keep it), each snippet as (path, text)
CASES: dict[Rule, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    imports_go_left: (
        [
            ("base/files.py", "from parbyte.text import shards"),
            ("model/gpt.py", "import parbyte.train.loop"),
            ("model/gpt.py", "from ..train import loop"),
            ("model/gpt.py", "from parbyte import train"),
            ("predict/neural.py", "def f():\n    from parbyte.score.ledger import Ledger"),
            ("report/page.py", "from parbyte.pipeline import run_stages"),
            ("helpers/files.py", "x = 1"),
        ],
        [
            ("train/loop.py", "from parbyte.model.gpt import GPT\nfrom .optim import Muon"),
            ("train/__init__.py", "from . import optim"),
            ("pipeline.py", "from parbyte.cli import main\nfrom parbyte.base import files"),
            ("base/files.py", "import json\nfrom parbyte import __version__"),
        ],
    ),
    claims_stay_fenced: (
        [
            ("report/page.py", "from parbyte.claims import slot"),
            ("cli.py", "import parbyte.claims"),
            ("predict/neural.py", "from parbyte.claims.slot import per_sample_slot"),
            ("score/measure.py", "from ..claims import hashed"),
            ("codec/drive.py", "def f():\n    from parbyte.claims.grams import Tables"),
            ("pipeline.py", "import parbyte.claims"),
            ("stages.py", "from parbyte import claims"),
            ("cli/run_commands.py", "from parbyte.claims.claimed import Claimed"),
            ("cli/seed_commands.py", "from parbyte.claims.claimed import Claimed"),
            ("audit/flip.py", "from parbyte.claims import slot"),
            ("scoring.py", "from parbyte.seed.climb import climb"),
            ("report/page.py", "import parbyte.seed"),
        ],
        [
            ("seed/rungs.py", "from parbyte.claims import slot"),
            ("claims/counts.py", "from parbyte.claims.hashed import hashed_mixer"),
            ("cli/seed_commands.py", "def f():\n    from parbyte.seed.climb import climb"),
        ],
    ),
    nothing_is_pickled: (
        [
            ("train/a.py", "import pickle"),
            ("train/a.py", "import torch\nw = torch.load('w.pt', weights_only=True)"),
            ("train/a.py", "torch.save({}, 'w.pt')"),
            ("train/a.py", "from torch import load"),
            ("text/a.py", "np.load('a.npz', allow_pickle=True)"),
        ],
        [("train/a.py", "from safetensors.torch import load_file\nload_file('a')")],
    ),
    environment_is_read_in_one_file: (
        [
            ("train/a.py", "import os\nx = os.environ['A']"),
            ("train/a.py", "import os\nx = os.environ.get('A')"),
            ("cli.py", "from os import getenv"),
        ],
        [
            ("base/world.py", "import os\nos.environ.get('RANK')"),
            ("text/a.py", "import os\nos.open"),
        ],
    ),
    clock_is_read_in_one_file: (
        [
            ("train/a.py", "import time"),
            ("train/a.py", "from time import perf_counter"),
            ("report/a.py", "import datetime\ndatetime.datetime.now().isoformat()"),
            ("report/a.py", "from datetime import date\ndate.today()"),
        ],
        [
            ("base/clock.py", "import time"),
            ("train/a.py", "from parbyte.base.clock import now_s\nx.time(3)"),
        ],
    ),
    predictors_never_know_the_answer: (
        [
            ("predict/a.py", "def log_probs(tokens, target_ids): ..."),
            ("codec/a.py", "x = 1  # the Target"),
        ],
        [("train/a.py", "targets = 1"), ("claims/a.py", "target = 1")],
    ),
    only_the_console_prints: (
        [("train/a.py", "print('x')"), ("report/a.py", "say = print")],
        [("cli.py", "print('x')"), ("cli/run.py", "print('x')"), ("base/log.py", "print('x')")],
    ),
    files_stay_short: (
        [("base/a.py", "x = 1\n" * (MAX_FILE_LINES + 1))],
        [("base/a.py", "x = 1\n" * MAX_FILE_LINES)],
    ),
    functions_stay_short: (
        [("base/a.py", LONG_FUNCTION), ("base/a.py", "class A:\n  async " + LONG_FUNCTION)],
        [("base/a.py", "def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1))],
    ),
    modules_say_what_they_are_for: (
        [("base/a.py", "x = 1"), ("base/a.py", "# a comment\n")],
        [("base/a.py", '"""What it does."""')],
    ),
    triton_stays_in_kernels: (
        [("model/a.py", "import triton.language as tl"), ("report/figures.py", "import triton")],
        [("kernels/a.py", "import triton")],
    ),
    matplotlib_stays_in_figures: (
        [("report/page.py", "from matplotlib import pyplot"), ("cli.py", "import matplotlib")],
        [("report/figures.py", "import matplotlib")],
    ),
    numba_stays_behind_its_door: (
        [("kernels/portable/net.py", "import numba"), ("codec/freqs.py", "from numba import njit")],
        [("kernels/portable/jit.py", "import numba")],
    ),
    sentencepiece_stays_in_text: (
        [("text/prepare.py", "import sentencepiece"), ("pack/a.py", "from sentencepiece import x")],
        [
            ("text/sentencepiece.py", "import sentencepiece"),
            ("text/sentencepiece_blob.py", "import sentencepiece"),
            ("text/official.py", "import sentencepiece"),
            ("text/tokenizer_training.py", "import sentencepiece"),
        ],
    ),
}


def package_sources() -> list[Source]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [Source(path.relative_to(PACKAGE).as_posix(), path.read_text()) for path in paths]


def rule_name(rule: Rule) -> str:
    return rule.__name__.replace("_", "-")


@pytest.mark.parametrize("rule", CASES, ids=rule_name)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    found = [f"src/parbyte/{s.path}: {text}" for s in package_sources() for text in rule(s)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", CASES, ids=rule_name)
def test_the_rule_complains_where_it_is_broken_and_only_there(rule: Rule) -> None:
    bad, good = CASES[rule]
    for path, text in bad:
        assert rule(Source(path, text)), f"{rule_name(rule)} missed in {path}: {text!r}"
    for path, text in good:
        assert not rule(Source(path, text)), f"{rule_name(rule)} misfired in {path}: {text!r}"


LIGHT_MODULES = ["parbyte", "parbyte.recipe", "parbyte.cli"]


def heavy_packages_loaded_by(module: str) -> list[str]:
    code = (
        f"import sys, {module}; print(*({{'torch', 'matplotlib', 'scipy'}} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = heavy_packages_loaded_by(module)
    assert not heavy, (
        f"import {module} loads {heavy}: import them inside the function that needs them"
    )


def test_a_heavy_import_would_be_noticed() -> None:
    assert heavy_packages_loaded_by("matplotlib") == ["matplotlib"]


HONEST_PATH = ["predict.build", "score.measure", "codec.compress", "codec.restore", "stages"]
HONEST_PATH += ["pipeline", "scoring", "scorecard", "cli.app"]


def test_no_honest_number_is_made_with_a_claim_in_memory() -> None:
    names = ", ".join(f"parbyte.{name}" for name in HONEST_PATH)
    fenced = tuple(f"parbyte.{room}" for room in FENCES)
    code = f"import sys, {names}; print(*[m for m in sys.modules if m.startswith({fenced})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_every_room_is_in_readmes_tree() -> None:
    readme = (ROOT / "README.md").read_text()
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    missing = sorted(room for room in folders if f"{room}/" not in readme)
    assert not missing, f"README.md's tree does not name {missing}: give each half a line"


def test_every_room_has_a_folder_of_tests() -> None:
    rooms = [room for room in ROOMS if (PACKAGE / room).is_dir()]
    missing = [room for room in rooms if not list((ROOT / "tests" / room).glob("test_*.py"))]
    assert not missing, f"no tests/<room>/test_*.py for {missing}"


def test_neither_a_start_of_the_program_nor_an_artifact_loads_the_compiler() -> None:
    code = (
        "import sys, parbyte.cli.app, parbyte.train.loop, parbyte.predict.build\n"
        "from parbyte.model.config import ModelConfig\n"
        "from parbyte.pack.header import expected_shapes\n"
        "expected_shapes(ModelConfig(vocab_size=256))\n"
        "print([name for name in ('torch._dynamo', 'triton') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == "[]"
