"""Recipes and tracks: strict, with origins, overridable, and equal to what they write."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbyte.base.errors import RecipeError
from parbyte.recipe import RECIPES_FOLDER, Recipe, find_recipe, load_recipe, recipe_to_toml
from parbyte.track import TRACKS_FOLDER, list_names, load_track

RECIPES = list_names(RECIPES_FOLDER)
BITS = ("embed", "table", "attn", "mlp", "proj")


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def error_of(source: str | Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_loads_and_is_equal_to_what_it_writes(
    name: str, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    again = load_recipe(write(tmp_path, recipe_to_toml(recipe), "recipe.toml"))
    assert again.tables() == recipe.tables()
    assert again.name == recipe.name == name
    assert again.sha256() == recipe.sha256()


def test_shipped_tracks_have_the_budgets_of_the_design() -> None:
    caps = {name: load_track(name, where="test").cap_bytes for name in list_names(TRACKS_FOLDER)}
    assert caps == {
        "tiny": 400_000,
        "tiny-open": 1_000_000,
        "golf": 16_000_000,
        "golf-1gpu": 16_000_000,
    }


def test_the_seed_recipe_has_its_27_million_parameters() -> None:
    from dataclasses import replace

    from parbyte.model.gpt import GPT

    recipe = load_recipe("pr1430-base")
    model = GPT(replace(recipe.model, vocab_size=1024, bos_id=1))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 27.07


@pytest.mark.parametrize("name", ["pr1430", "pr1430-1gpu", "pr1430-tiny"])
def test_the_seed_recipes_have_every_part_of_it_switched_on(name: str) -> None:
    recipe = load_recipe(name)
    model, training, quant = recipe.model, recipe.train, recipe.quant
    assert model.xsa_layers == model.num_layers and model.smear == "static"
    assert model.bigram_buckets and model.value_embed_layers == 2 and model.skips == "plain"
    assert (training.mtp_heads, training.mtp_weight, training.ema_decay) == (2, 0.1, 0.997)
    assert (training.qat, training.qat_below) == ("straight", 0.15)
    assert training.smear_start == 0.0
    assert (quant.method, quant.damping, quant.calibration) == ("gptq", 0.005, "train")
    assert (quant.bits_attn, quant.bits_mlp, recipe.pack.coders) == (6, 6, ("lzma",))
    assert recipe.predict.stack == ()


@pytest.mark.parametrize("name", ["pr1430", "pr1430-1gpu"])
def test_the_seed_recipes_share_one_network(name: str) -> None:
    assert load_recipe(name).model == load_recipe("pr1430-base").model


def test_the_baseline_recipe_has_the_parameters_of_its_record() -> None:
    from dataclasses import replace

    from parbyte.model.gpt import GPT

    recipe = load_recipe("golf-baseline")
    model = GPT(replace(recipe.model, vocab_size=1024, bos_id=1))
    assert sum(p.numel() for p in model.parameters()) == 17_059_912


def test_origins_say_where_each_value_came_from(tmp_path: Path) -> None:
    path = write(tmp_path, 'track = "tiny"\n[model]\nnum_layers = 3\n')
    text = recipe_to_toml(load_recipe(path, ["train.seed=7"]))
    assert "num_layers = 3  # file" in text
    assert "seed = 7  # --set" in text
    assert "model_dim = 128  # default" in text
    assert 'corpus = "kjv"  # track' in text


def test_a_recipe_without_a_corpus_takes_its_tracks(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, 'track = "golf"\n'))
    assert recipe.text.corpus == "fineweb"


def test_an_unknown_key_names_file_key_and_nearest_key(tmp_path: Path) -> None:
    path = write(tmp_path, 'track = "tiny"\n[train]\nsecnds = 3\n')
    line = error_of(path)
    assert str(path) in line and "'train.secnds'" in line and "'seconds'" in line


def test_a_bad_value_names_key_value_and_range(tmp_path: Path) -> None:
    path = write(tmp_path, 'track = "tiny"\n[train]\nwarmdown = 1.5\n')
    line = error_of(path)
    assert str(path) in line and "train.warmdown" in line and "1.5" in line and "0.0..1.0" in line


def test_a_bad_override_names_itself() -> None:
    assert "--set" in error_of("tiny", "train.seconds=-1")
    assert "did you mean 'train'" in error_of("tiny", "trian.seconds=1")
    assert "section.key=value" in error_of("tiny", "seconds=1")
    assert "section.key=value" in error_of("tiny", "train.seconds")


def test_unknown_names_get_the_nearest_name() -> None:
    assert "did you mean 'tiny-quick'" in error_of("tiny-quik")
    assert "did you mean 'golf-1gpu'" in error_of("tiny", "track=golf-1cpu")


def test_unknown_sections_and_missing_tracks_are_refused(tmp_path: Path) -> None:
    assert "did you mean 'quant'" in error_of(write(tmp_path, 'track = "tiny"\n[qant]\n'))
    assert "key 'track' is missing" in error_of(write(tmp_path, "[train]\nseconds = 1\n"))
    assert "must be a table" in error_of(write(tmp_path, 'track = "tiny"\ntrain = 3\n'))


def test_no_toml_and_no_text_are_one_line_each(tmp_path: Path) -> None:
    assert "is no TOML" in error_of(write(tmp_path, "track = \n"))
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in error_of(path)
    assert "is no run folder" in error_of(tmp_path)


def test_training_longer_than_the_track_allows_is_refused() -> None:
    line = error_of("tiny", "train.seconds=200")
    assert "'train.seconds' is 200" in line and "allows 180" in line
    assert load_recipe("tiny", ["train.seconds=3 min"]).train.seconds == 180
    line = error_of("tiny", "quant.heal_seconds=30")
    assert "'train.seconds' is 174 + 'quant.heal_seconds' 30" in line and "allows 180" in line
    healed = load_recipe("tiny", ["train.seconds=150", "quant.heal_seconds=30"])
    assert healed.quant.heals


def test_a_stage_that_trains_more_blocks_than_there_are_is_refused(tmp_path: Path) -> None:
    text = 'track = "tiny"\n[model]\nnum_layers = 2\n[[predict.stack]]\nkind = "ttt"\n'
    text += 'train = "last"\nlast_blocks = '
    line = error_of(write(tmp_path, text + "3\n"))
    assert "'predict.stack[0].last_blocks' is 3" in line and "model.num_layers = 2" in line
    assert load_recipe(write(tmp_path, text + "2\n")).predict.stack[0].last_blocks == 2


def test_training_text_for_counts_needs_a_stage_that_counts(tmp_path: Path) -> None:
    text = 'track = "tiny"\n[pack]\nprior_bytes = "6 KB"\n[[predict.stack]]\nkind = '
    line = error_of(write(tmp_path, text + '"sse"\n'))
    assert "'pack.prior_bytes' is 6,000" in line and "ngram" in line
    assert load_recipe(write(tmp_path, text + '"mix"\n')).pack.prior_bytes == 6_000


def test_a_recipe_with_steps_needs_no_clock() -> None:
    assert load_recipe("tiny", ["train.steps=20", "train.seconds=999"]).train.steps == 20


def test_a_changed_budget_is_no_longer_the_named_track() -> None:
    track = load_recipe("tiny", ["track.cap_bytes=300 KB"]).track
    assert (track.cap_bytes, track.name) == (300_000, "tiny, changed")


def test_a_track_can_be_chosen_by_override_or_by_file(tmp_path: Path) -> None:
    assert load_recipe("golf-baseline", ["track=golf-1gpu"]).track.gpus == 1
    text = (TRACKS_FOLDER / "tiny.toml").read_text().replace("400_000", "5_000")
    path = write(tmp_path, text, "pocket.toml")
    track = load_recipe("tiny", [f"track={path}"]).track
    assert (track.name, track.cap_bytes) == ("pocket", 5_000)


def test_overrides_are_toml_and_fall_back_to_plain_strings() -> None:
    recipe = load_recipe(
        "tiny", ["text.corpus=my notes.txt", "model.logit_bias=false", 'pack.coders=["lzma"]']
    )
    assert recipe.text.corpus == "my notes.txt"
    assert recipe.model.logit_bias is False
    assert recipe.pack.coders == ("lzma",)


def test_an_override_cannot_smuggle_in_a_second_key() -> None:
    assert load_recipe("tiny", ["text.corpus=1\nseed = 2"]).text.corpus == "1\nseed = 2"


def test_the_hash_counts_values_and_not_their_origins() -> None:
    plain = load_recipe("tiny")
    assert load_recipe("tiny", ["train.seconds=174"]).sha256() == plain.sha256()
    assert load_recipe("tiny", ["train.seconds=179"]).sha256() != plain.sha256()


def test_a_run_folder_stands_for_the_recipe_in_it(tmp_path: Path) -> None:
    write(tmp_path, recipe_to_toml(load_recipe("tiny", ["train.seed=9"])), "recipe.toml")
    assert find_recipe(tmp_path) == tmp_path / "recipe.toml"
    assert load_recipe(tmp_path).train.seed == 9


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives_being_written_as_toml(text: str) -> None:
    import tomllib

    from parbyte.text.config import TextConfig

    recipe: Recipe = load_recipe("tiny")
    changed = Recipe(**{**vars(recipe), "text": TextConfig(corpus=text), "name": text})
    written = tomllib.loads(recipe_to_toml(changed))
    assert written["text"]["corpus"] == text
    assert written["name"] == text


def test_deeply_nested_values_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(RecipeError, match="nested too deeply"):
        load_recipe(path)


def test_a_start_of_the_smear_needs_a_static_one() -> None:
    with pytest.raises(
        RecipeError, match=r"'train\.smear_start' is 0, but 'model\.smear' is 'gated'"
    ):
        load_recipe("tiny", ["train.smear_start=0", "model.smear=gated"])
    assert load_recipe("tiny", ["train.smear_start=0"]).train.smear_start == 0.0
    assert load_recipe("tiny").train.smear_start == 3.0


def test_a_loop_that_turns_on_but_does_not_exist_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'train\.loop_at' is .*, but 'model\.loop' is empty"):
        load_recipe("tiny", ["train.loop_at=0.35"])
    recipe = load_recipe("tiny", ["train.loop_at=0.35", "model.loop=[0, 1, 2]"])
    assert recipe.model.loop == (0, 1, 2)


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["quant.allocation=sensitivity"], "'quant.allocation' chooses the grid after training"),
        ([], "'pack.fit' chooses the grid after training with 'quant.clip' = 'std'"),
        (
            ["quant.clip=search", *(f"quant.bits_{r}=16" for r in BITS)],
            "'quant.bits_mlp' and the others keep float16",
        ),
        (
            ["quant.clip=search", "quant.grid=e8", "quant.rate_weight=0"],
            "'quant.grid' makes a grid that training does not",
        ),
        (["quant.clip=search", "quant.group=8"], "'quant.group' makes a grid"),
        (["pack.fit=false", "quant.awq_columns=8"], "'quant.awq_columns' makes a grid"),
    ],
)
def test_training_on_a_grid_that_is_not_known_yet_is_refused(
    overrides: list[str], wanted: str
) -> None:
    line = error_of("tiny", "train.qat=soft", *overrides)
    assert "'train.qat' is 'soft'" in line and wanted in line


def test_training_on_a_known_grid_is_a_recipe() -> None:
    for change in ("pack.fit=false", "quant.clip=search"):
        assert load_recipe("tiny", ["train.qat=soft", change]).train.qat == "soft"


def test_training_is_done_anew_for_another_grid_only_if_it_sees_the_grid(tmp_path: Path) -> None:
    from parbyte.base.log import Console
    from parbyte.run_folder import Records, Run
    from parbyte.stages import STAGES

    (stage,) = [stage for stage in STAGES if stage.name == "train"]

    def depends_on(*overrides: str) -> object:
        recipe = load_recipe("pr1430-tiny", overrides)
        return stage.depends_on(Run(tmp_path, recipe, Console(quiet=True)), Records(tmp_path))

    assert depends_on("quant.bits_mlp=5") != depends_on()
    assert depends_on("quant.damping=0.01") == depends_on()
    assert depends_on("train.qat=off", "quant.bits_mlp=5") == depends_on("train.qat=off")
