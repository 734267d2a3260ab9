"""What README.md and the house's files say is true: numbers, commands, links, scripts."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from benchmarks import pages, run, table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
PAGES += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]


FLAGS = re.DOTALL | re.MULTILINE


def code_in(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```(?:\n.*?)```|`[^`\n]+`|^    [^\n]*$", text, FLAGS))


def test_the_table_of_numbers_is_what_the_stored_results_say() -> None:
    wanted = pages.replace_block(
        README, table.BLOCK, table.render_table(table.read_results(table.RESULTS))
    )
    assert wanted == README, "README.md's numbers are not those of benchmarks/results: `make table`"


def test_a_changed_result_changes_the_table() -> None:
    results = {"demo": {"coded_bpb": 1.5, "hardware": {"cores": 2, "cpu": "Example"}}}
    block = table.render_table(results)
    assert "1.5000 bpb (coded)" in block and "2 cores of Example" in block
    assert table.render_table({}) != block


def test_a_readme_without_its_markers_is_refused() -> None:
    with pytest.raises(SystemExit, match="once each"):
        pages.replace_block("no markers", "numbers", "block")


def test_every_benchmark_is_listed_or_is_a_tool() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    listed = set(run.BENCHMARKS) | set(run.ON_REQUEST)
    assert scripts - {"run", "table", "picture", "pages"} == listed
    described = (ROOT / "benchmarks" / "README.md").read_text()
    assert all(f"`{name}.py`" in described for name in listed)


def test_every_command_named_in_the_pages_exists() -> None:
    from parbyte.cli.app import app

    assert "parbyte prove" in code_in("README.md")
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    for page in PAGES:
        named = set(re.findall(r"(?:^|`|bin/)parbyte ([a-z]+)", code_in(page), re.MULTILINE))
        assert named <= known, f"{page} names {sorted(named - known)}"


def test_every_make_target_named_in_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^ *|`)make ([a-z]+)", code_in(page), re.MULTILINE))
        assert named <= targets, f"{page} names {sorted(named - targets)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_the_repository_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"


def test_the_two_commands_stand_on_the_first_screen() -> None:
    first_screen = README.splitlines()[:25]
    assert any("make demo" in line for line in first_screen)
    assert any("make test" in line for line in first_screen)


def test_ci_runs_the_tests_and_the_quick_demo() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert text.index("make test") < text.index("make demo QUICK=1")
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


# A make above this one hands its flags down; these plans are those of a fresh shell.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def planned(target: str, *arguments: str) -> str:
    command = ["make", "--dry-run", "--always-make", target, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_demo_sets_itself_up_and_checks_the_round_trip() -> None:
    plan = planned("demo")
    assert plan.index("pip install") < plan.index("parbyte run tiny --out runs/demo")
    assert "-c constraints.txt" in plan and "cmp " in plan


def test_the_quick_demo_has_its_own_recipe_and_leaves_out_the_second_decoding() -> None:
    quick, full = (planned("demo", *extra).splitlines() for extra in (["QUICK=1"], []))
    left_out = [line for line in full if line not in quick]
    assert any("parbyte run tiny-quick --out runs/demo" in line for line in quick)
    assert [re.search("run tiny|decompress|cmp|restores", line) for line in left_out].count(
        None
    ) == 0


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_set_up_is_done_once_and_again_when_the_requirements_change(
    tmp_path: Path, changed: str
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    fake = tmp_path / "fakepython"
    fake.write_text(
        "#!/bin/sh\n"
        'case "$*" in *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;'
        ' cp "$0" .venv/bin/pip;; *"pip install"*) echo installed >> log;; esac\n'
    )
    fake.chmod(0o755)

    def set_up() -> int:
        command = ["make", "-s", "setup", f"PYTHON={fake}"]
        subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True)
        return len((tmp_path / "log").read_text().splitlines())

    assert [set_up(), set_up()] == [1, 1]
    stamp = (tmp_path / ".venv" / "installed").stat().st_mtime
    os.utime(tmp_path / changed, (stamp + 10, stamp + 10))
    assert set_up() == 2


def test_the_speed_of_the_counts_is_that_of_the_stored_result() -> None:
    page = (ROOT / "docs" / "eval-time.md").read_text(encoding="utf-8")
    results = table.read_results(table.RESULTS)
    stored, lanes = results["ngram"], results["ngram_lanes"]
    assert f"{stored['table']['tokens_per_s']:,.0f} updates and queries" in page
    assert f"{stored['stage']['tokens_per_s']:,.0f} tokens a second" in page
    for law in (lanes["token"], lanes["chunk"]):
        assert f"{law['tokens_per_s']:,.0f}" in page and f"{law['bits_per_token']:.4f}" in page


def test_the_page_on_gpus_quotes_the_stored_results() -> None:
    stored, page = table.read_results(table.RESULTS), (ROOT / "docs" / "gpu.md").read_text()
    shape, golf = stored["train"]["golf-record"], stored["golf"]
    figures = [shape[phase]["tokens_per_second"] for phase in ("plain", "looping")]
    for variant in stored["train"]["golf-record on the way"]:
        figures += [variant[phase]["tokens_per_second"] for phase in ("plain", "looping")]
    strides = ("stride_64", "stride_1024", "stride_1024_few_batches")
    figures += [stored["scoring"][stride]["scored_tokens_per_s"] for stride in strides]
    coding = stored["prove"]["round_trip"]
    figures += [coding[direction]["tokens_per_s"] for direction in ("encode", "decode")]
    paces = ("tokens_per_second", "exact_tokens_per_second", "rounded_tokens_per_second")
    figures += [golf[key] for key in ("artifact_bytes", "bitstream_bytes", *paces)]
    missing = [f"{value:,.0f}" for value in figures if f"{value:,.0f}" not in page]
    missing += [
        f"{golf[k]:.4f}" for k in ("coded_bpb", "measured_bpb") if f"{golf[k]:.4f}" not in page
    ]
    assert not missing, f"docs/gpu.md does not say {missing}"
