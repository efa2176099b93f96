"""The shipped weights: whole, as the manifest says, and as good as it says."""

import json
import shutil

import pytest

from gill_lite.errors import GillError
from gill_lite.files import DATA, read_json
from gill_lite.model import backbones
from gill_lite.model.checkpoint import read_joints
from gill_lite.pretraining import pretrain
from gill_lite.profiles import MINI as MINI_PROFILE
from gill_lite.training.recipes import RECIPES, there, train_command

MINI = DATA / "mini"
LIMIT, LIMIT_OF_ALL = 72 * 2**20, 120 * 10**6  # bytes; the family has a limit of its own
ABLATED = ("linear", "mlp", "encoder")  # mappers
BESIDE = {"glide", *RECIPES} - {"gill"}  # baselines, and joints that change one thing


@pytest.fixture(scope="module")
def manifest():
    return backbones.check_files(MINI)


def test_every_file_is_listed_and_none_is_too_many(manifest):
    there = {
        str(p.relative_to(MINI))
        for p in MINI.rglob("*")
        if p.is_file() and pretrain.is_weight_file(p, MINI)
    }
    assert there == set(manifest["files"])


def test_all_weights_are_safetensors_and_small(manifest):
    files = [p for p in MINI.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".safetensors", ".json"}
    parts = {p: {part.rsplit("-", 1)[0] for part in p.relative_to(MINI).parts} for p in files}
    main = [p for p in files if not parts[p] & BESIDE]
    assert sum(p.stat().st_size for p in main) < LIMIT
    weights = [*MINI.rglob("*.safetensors"), *(DATA / "lms").rglob("*.safetensors")]
    assert sum(p.stat().st_size for p in weights) < LIMIT_OF_ALL


def test_every_recipe_has_its_joints_and_they_say_how_they_were_made():
    made = {path.name for path in (MINI / "joints").iterdir()}
    wanted = {f"{name}-{seed}": (name, seed) for name, r in RECIPES.items() for seed in r.seeds}
    assert made <= set(wanted)
    for folder, (name, seed) in ((folder, wanted[folder]) for folder in sorted(made)):
        told = read_joints(MINI / "joints" / folder).provenance
        typed, known = (set(command.split()) for command in (
            told["command"], train_command(name, seed)
        ))  # fmt: skip
        steps = RECIPES[name].options.get("steps", MINI_PROFILE.steps)
        assert typed - {"--mapper", "gill"} == known - {"--mapper", "--steps", str(steps)}, folder
        assert told["steps"] == steps


def test_missed_targets_are_named_by_the_manifest(manifest):
    for name, stage in manifest["stages"].items():
        missed = {k for k, goal in stage["targets"].items() if stage["held_out"][k] < goal}
        assert missed == set(stage["missed"]), name
        assert stage["steps"] > 0


DRAWING = {"denoiser", "glide"}  # stages whose measures take minutes of drawing


def measured_again(manifest, names):
    """The same held-out pictures and texts in the same number: only float noise is forgiven."""
    again = pretrain.remeasure(MINI, names=names)
    for name in names:
        for measure, value in manifest["stages"][name]["held_out"].items():
            slack = 0.1 if measure == "psnr_db" else 0.02
            assert abs(again[name][measure] - value) < slack, (name, measure)


def test_measures_hold_when_taken_again(manifest):
    measured_again(manifest, [name for name in manifest["stages"] if name not in DRAWING])


@pytest.mark.full
def test_measures_of_drawn_pictures_hold_when_taken_again(manifest):
    measured_again(manifest, sorted(DRAWING))


def test_a_fifth_of_the_drawn_pictures_is_as_good_as_all(manifest):
    """Within three standard errors of so few pictures; the whole is a `full` test."""
    pictures = 40  # of each split
    again = pretrain.remeasure(MINI, count=5 * pictures, names=sorted(DRAWING))
    for name in DRAWING:
        for measure, value in manifest["stages"][name]["held_out"].items():
            share = min(max(value, 0.05), 0.95)
            slack = 3 * (share * (1 - share) / pictures) ** 0.5
            assert abs(again[name][measure] - value) < slack, (name, measure)


def test_a_tampered_weight_file_is_refused_by_name(tmp_path):
    shutil.copytree(MINI, tmp_path / "mini", ignore=shutil.ignore_patterns("joints"))
    path = tmp_path / "mini" / "probes" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(GillError, match=r"probes/model.safetensors is not the one"):
        backbones.check_files(tmp_path / "mini")
    path.unlink()
    with pytest.raises(GillError, match=r"probes/model.safetensors is missing"):
        backbones.check_files(tmp_path / "mini")


def test_a_missing_manifest_is_one_sentence(tmp_path):
    with pytest.raises(GillError, match="weights manifest .* is missing"):
        backbones.check_files(tmp_path)


def test_joints_say_how_they_were_made():
    assert len(there("gill")) >= 3
    for seed in there("gill"):
        about = read_json(MINI / "joints" / f"gill-{seed}" / "config.json")
        assert f"--seed {seed}" in json.dumps(about)


@pytest.mark.parametrize("mapper", ABLATED)
def test_joints_of_other_mappers_were_trained_at_the_rate_they_prefer(mapper):
    best = read_json(DATA.parent / "results" / "mapper_search.json")["best"][mapper]
    assert there(mapper)
    for seed in there(mapper):
        about = read_json(MINI / "joints" / f"{mapper}-{seed}" / "config.json")
        command = f"--mapper {mapper} --learning-rate {best:g} --seed {seed}"
        settings = about["provenance"]["settings"]
        assert set(command.split()) <= set(about["provenance"]["command"].split())
        assert (settings["mapper"], settings["learning_rate"], settings["seed"]) == (
            mapper,
            best,
            seed,
        )


def test_joints_were_trained_on_the_backbones_they_stand_on():
    shipped = backbones.load_backbones(MINI_PROFILE)
    for method, recipe in RECIPES.items():
        for seed in there(method):
            under = shipped if recipe.lm is None else backbones.with_lm(shipped, recipe.lm_folder)
            about = read_json(MINI / "joints" / f"{method}-{seed}" / "config.json")
            trained_on = about["provenance"]["settings"]["backbones"]
            assert trained_on == backbones.fingerprint(under), (method, seed)


OTHER_LMS = sorted((DATA / "lms").iterdir())


def test_there_are_smaller_language_models():
    assert {path.name for path in OTHER_LMS} >= {"64x2", "128x4"}


@pytest.mark.parametrize("folder", OTHER_LMS, ids=lambda folder: folder.name)
def test_other_language_models_are_whole(folder):
    stage = backbones.check_files(folder)["stages"]["lm"]
    missed = {k for k, goal in stage["targets"].items() if stage["held_out"][k] < goal}
    assert missed == set(stage["missed"]) and stage["size"] == folder.name


@pytest.mark.parametrize("size", ["64x2", pytest.param("128x4", marks=pytest.mark.full)])
def test_other_language_models_are_as_good_as_they_say(size):
    told = backbones.check_files(DATA / "lms" / size)["stages"]["lm"]["held_out"]
    (again,) = pretrain.remeasure(DATA / "lms" / size, names=("lm",)).values()
    for measure, value in told.items():
        assert abs(again[measure] - value) < 0.02, measure
