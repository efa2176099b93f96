"""The command line: complete help, one sentence for bad input, one report for a run."""

import base64
import importlib
import json
import re
import socket
import sys
import types
from functools import partial
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from gill_lite.cli import main as cli
from gill_lite.cli import options, train, world
from gill_lite.experiments import reproduce
from gill_lite.profiles import MINI, PAPER
from gill_lite.report import page, summary
from tests.helpers.pretended import parameters, pretend_repository, write_notebook

COMMANDS = (
    "reproduce",
    "train",
    "evaluate",
    "chat",
    "index",
    "demo",
    "pretrain",
    "export",
    "doctor",
    "fetch",
    "convert",
)


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^ +{name}\b", text, re.MULTILINE), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main([name, "--help"])
    assert done.value.code == 0
    assert "SUPPRESS" not in capsys.readouterr().out
    (parsers,) = [a for a in cli.build_parser()._actions if hasattr(a, "choices") and a.choices]
    for action in parsers.choices[name]._actions:
        assert action.help and action.help[0].islower() or action.help.startswith("GILL"), action


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("reproduce --profile minni", "unknown profile 'minni'; did you mean 'mini'?"),
        ("reproduce --profile paper", "in profile 'paper' compute the tables with"),
        ("reproduce --tables 7", "no table '7' to reproduce; known: 1, 2, mappers"),
        ("evaluate 7", "no table '7'"),
        ("train --profile minni", "did you mean 'mini'?"),
        ("chat --profile minni hello", "did you mean 'mini'?"),
        ("chat @nowhere.png", "image nowhere.png is missing"),
        ("doctor --profile minni", "did you mean 'mini'?"),
        ("convert nowhere -o out", "nowhere/model_args.json is missing"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(typed, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(typed.split()) == 2
    told = capsys.readouterr()
    assert sentence in told.err and told.err.count("\n") == 1 and told.out == ""
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("reproduce --seeds 0,x", "'x' is not a whole number"),
        ("reproduce --seeds 0,,1", "'0,,1' is not a comma-separated list"),
        ("reproduce --seeds 0,0", "without repeats"),
        ("reproduce --num-stories 0", "'0' is not a whole number of 1 or more"),
        ("train --steps -5", "'-5' is not a whole number of 1 or more"),
        ("train --mapper resnet", "invalid choice: 'resnet'"),
        ("pretrain vae", "invalid choice: 'vae'"),
        ("pretrain --work-dir s3://b/x", "s3://b/x, an address, and must be a folder of this"),
        ("family limber --work-dir s3://b/x", "s3://b/x, an address, and must be a folder of this"),
        ("export gs://b/x", "gs://b/x, an address, and must be a folder of this machine"),
        ("fetch clip --data-dir s3://b", "the output folder is s3://b, an address"),
        ("evaluate 1 --cache s3://b", "the output folder is s3://b, an address"),
        ("", "required: COMMAND"),
    ],
)
def test_bad_options_exit_2(typed, sentence, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(typed.split())
    assert done.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_port_that_cannot_be_had_is_told_before_models_are_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (taken.getsockname()[1], 99_999):
            assert cli.main(["demo", f"--port={port}", "--profile=paper"]) == 2
            told = capsys.readouterr().err
            assert told.startswith(f"gill-lite: cannot serve at 127.0.0.1:{port} (")
            assert told.endswith("); name another --port or --host\n") and told.count("\n") == 1


def test_an_image_that_is_none_is_named(tmp_path, capsys):
    path = tmp_path / "note.png"
    path.write_text("no picture")
    assert cli.main(["chat", f"@{path}"]) == 2
    assert f"image {path} is not a picture" in capsys.readouterr().err


@pytest.fixture
def stand_in(monkeypatch):
    """Put a module of recording functions in the place of one that is slow to run."""
    calls = []

    def install(module: str, *functions: str, result=None):
        fake = types.ModuleType(module)
        for name in functions:
            record = lambda *a, _name=name, **k: calls.append((_name, a, k)) or result  # noqa: E731
            setattr(fake, name, record)
        monkeypatch.setitem(sys.modules, module, fake)
        parent, _, child = module.rpartition(".")
        monkeypatch.setattr(importlib.import_module(parent), child, fake, raising=False)
        return calls

    return install


@pytest.fixture
def trained(stand_in, monkeypatch):
    """`trained("train --steps 5")` runs the command; returns what training.train was given."""
    import gill_lite.model.backbones
    import gill_lite.training.data
    import gill_lite.training.train  # noqa: F401

    class Moved:
        def to(self, device):
            assert device == "cpu"

    class Sharded(list):
        def summary(self):
            return "one pair"

    def load(profile, device, dtype, **models):
        loaded.append({"dtype": dtype, **models})
        pipeline = types.SimpleNamespace(unet=Moved(), vae=Moved())
        return types.SimpleNamespace(profile=profile, pipeline=pipeline)

    loaded = []
    calls = stand_in("gill_lite.training.train", "train")
    stand_in("gill_lite.training.data", "world_pairs", result=(["a pair"], "features"))
    stand_in("gill_lite.datasets.shards", "read_shards", result=Sharded(["a shard's pair"]))
    monkeypatch.setattr("gill_lite.model.backbones.load_backbones", load)

    def run(typed: str):
        assert cli.main(typed.split()) == 0
        (profile, _, pairs, folder, seed), options = calls[-1][1:]
        return profile, pairs, folder, seed, options, loaded[-1]

    return run


def test_train_passes_its_options_on(trained):
    typed = "train --seed 2 --steps 5 --mapper linear --no-resume -o out"
    profile, pairs, folder, seed, options, models = trained(typed)
    assert (profile, pairs, folder, seed) == (MINI, ["a pair"], Path("out"), 2)
    defaults = {"steps": None, "mapper": "gill", "resume": True, "num_workers": 0, "keep": 2}
    defaults |= {"gradient_accumulation_steps": 1, "save_every": 200, "tensorboard": False}
    defaults |= {
        "joints": None,
        "mixed_precision": "no",
        "image_features": "features",
        "validation": None,
    }
    command = options.pop("provenance")["command"]
    assert command == "gill-lite train --mapper linear --seed 2"
    assert options == defaults | {"steps": 5, "mapper": "linear", "resume": False}
    assert models == {"dtype": None}
    _, _, folder, seed, options, _ = trained("train")
    assert options.pop("provenance") and options == defaults
    assert (folder, seed) == (Path("runs/train/gill-0"), 0)


def test_train_replaces_what_the_profile_says(trained):
    typed = "--profile paper --shards x.tar --lm a --quantize 4bit --batch-size 8 --tensorboard"
    profile, pairs, folder, _, options, models = trained(f"train {typed} --mixed-precision bf16")
    assert profile == PAPER.replace(batch_size=8) and pairs == ["a shard's pair"]
    assert folder == Path("runs/train/gill-0") and options["tensorboard"]
    assert models == {"dtype": "bf16", "lm": "a", "quantize": "4bit"}
    assert options["image_features"] is None and options["mixed_precision"] == "bf16"
    typed = "--mapper none --learning-rate 2e-4 --num-img-tokens 4 --num-visual-tokens 2"
    profile, _, folder, _, options, _ = trained(f"train {typed}")
    assert profile == MINI.replace(learning_rate=2e-4, num_img_tokens=4, num_visual_tokens=2)
    assert options["mapper"] == "none"
    assert folder == Path("runs/train/none-r4-k2-0"), "what is not the default has its own folder"


def test_choices_are_the_ones_the_code_knows():
    from gill_lite.model.backbones import QUANTIZE
    from gill_lite.model.mappers import MAPPERS, RETRIEVAL_ONLY
    from gill_lite.pretraining.lm import SIZES
    from gill_lite.pretraining.pretrain import STAGES
    from gill_lite.training.step import PRECISIONS

    assert world.STAGES == STAGES and world.SIZES == tuple(SIZES)
    assert set(train.MAPPERS) == {*MAPPERS, RETRIEVAL_ONLY}
    assert train.PRECISIONS == PRECISIONS and options.QUANTIZE == QUANTIZE


def test_pretrain_and_export_pass_their_options_on(stand_in):
    calls = stand_in("gill_lite.pretraining.pretrain", "run")
    assert cli.main(["pretrain"]) == 0
    assert cli.main("pretrain lm --seed 1 -o a --work-dir b --device cpu --size 64x2".split()) == 0
    folders = {"output_dir": Path("runs/pretrain/mini"), "work_dir": Path("runs/pretrain/work")}
    defaults = {"stage": None, **folders, "seed": 0, "device": "auto", "size": None}
    given = {"stage": "lm", "output_dir": Path("a"), "work_dir": Path("b"), "seed": 1}
    given |= {"device": "cpu", "size": "64x2"}
    assert [{**options, "command": ""} for _, _, options in calls] == [
        {**defaults, "command": ""}, {**given, "command": ""}
    ]  # fmt: skip
    typed = [options["command"] for _, _, options in calls]
    assert typed == ["gill-lite pretrain", "gill-lite pretrain lm --seed 1 --size 64x2"]
    calls = stand_in("gill_lite.world.export", "export")
    assert cli.main("export out --num-stories 4 --seed 3 --split novel".split()) == 0
    numbers = {"num_stories": 4, "num_dialogues": 300, "num_captions": 300, "seed": 3}
    more = {"split": "novel", "progress": True}
    assert calls[-1] == ("export", (Path("out"),), numbers | more)


def test_an_interrupt_is_one_line_and_130(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bug_is_not_dressed_up_as_bad_input(monkeypatch):
    def buggy(arguments):
        raise KeyError("a bug")

    monkeypatch.setattr(train, "run", buggy)
    with pytest.raises(KeyError):
        cli.main(["train"])


# ---- reproduce, with a notebook that computes nothing ----

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
WRITE = """import json, pathlib
folder = pathlib.Path(output_dir)
(folder / "results").mkdir(exist_ok=True)
(folder / "figures").mkdir(exist_ok=True)
(folder / "figures" / "similarity.png").write_bytes({pixel!r})
result = json.loads({result!r})
result["counts"]["scored"] = num_stories * len(seeds)
assert recompute is True
(folder / "results" / "table1_vist.json").write_text(json.dumps(result))"""


def row(method, context, metric, mean, paper=None, paper_pm=None):
    low, high = mean - 0.01, mean + 0.01
    return {
        "method": method,
        "context": context,
        "metric": metric,
        "mean": mean,
        "low": low,
        "high": high,
        "n": 3,
        "undefined": "",
        "paper": paper,
        "paper_pm": paper_pm,
    }


RESULT = {
    "table": "table1_vist",
    "title": "Table 1 <VIST>",
    "rows": [
        row("Stable Diffusion", "last caption", "CLIP similarity", 0.166, 0.592, 0.0007),
        row("GILL", "last caption", "CLIP similarity", 0.172, 0.581, 0.0005),
        row("GILL", "five captions", "CLIP similarity", 0.698, 0.612),
        row("GILL", "five captions", "attribute accuracy", 0.9),
    ],
    "verdicts": [
        {
            "id": "vist-1",
            "statement": "GILL gains from longer contexts & pictures, " * 3,
            "difference": 0.5,
            "low": 0.4,
            "high": 0.6,
            "n": 3,
            "undefined": "",
            "verdict": "reproduced",
            "source": "",
            "statistic": "x: a/b > 0",
        }
    ],
    "counts": {"scored": 0, "eligible": 9, "skipped": {"missing image": 2}},
    "settings": {"seeds": [0, 2]},
    "provenance": {
        "command": "typed",
        "profile": "mini",
        "finished_utc": "now",
        "git_commit": "abc",
        "lock_sha256": None,
        "weights_manifest_sha256": None,
        "wall_seconds": 1.0,
        "peak_memory_mb": 1.0,
        "hardware": {"processor": "p", "cores": 2},
    },  # fmt: skip
    "figures": ["figures/similarity.png"],
}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A pretended repository; returns a function that sets its table notebook's second cell."""
    pretend_repository(tmp_path, monkeypatch)

    return partial(write_notebook, tmp_path)


def writing(**changes) -> str:
    result = {**RESULT, **changes}
    return WRITE.format(pixel=PIXEL, result=json.dumps(result))


def test_reproduce_writes_the_run_and_prints_the_table(repository, capsys):
    repository(writing())
    assert cli.main("reproduce --tables 1 --seeds 0,2 --num-stories 4 -o run".split()) == 0
    out = capsys.readouterr().out
    assert "Table 1 <VIST>" in out and "0.698 [0.688, 0.708]" in out and "reproduced" in out
    assert "8 of 9 eligible examples scored; skipped: missing image: 2." in out
    assert {p.name for p in Path("run").iterdir()} >= {"notebooks", "results", "report.html"}
    html = Path("run/report.html").read_text(encoding="utf-8")
    assert f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}" in html
    assert "Table 1 &lt;VIST&gt;" in html and "pictures, GILL gains" in html
    assert "gill-lite reproduce --tables 1 --seeds 0,2" in html and "0.592 ± 0.0007" in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html), "one self-contained page"
    assert not list(Path("run").glob("*.tmp"))
    assert [p.name for p in Path("run").glob(".*")] == [".lock"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("raise ValueError('no such story')", "failed in cell [3] with ValueError: no such story"),
        ("import os; os._exit(9)", "lost its Python process"),
        ("pass", "ran through but wrote no run/results/table1_vist.json"),
        (writing(rows=[]), "wrote no rows"),
        (writing(figures=["figures/lost.png"]), "figures that do not exist: figures/lost.png"),
        (writing() + "\n(folder / 'results/table1_vist.json').write_text('{')", "broken JSON"),
    ],
    ids=["error", "killed", "silent", "no rows", "no figure", "broken"],
)
def test_a_failed_table_is_told_and_exits_1(repository, capsys, source, sentence):
    repository(source)
    assert cli.main("reproduce --tables 1 -o run".split()) == 1
    told = capsys.readouterr().err
    assert sentence in told.splitlines()[-1]
    assert sentence in Path("run/report.html").read_text(encoding="utf-8").replace("&#39;", "'")


def test_an_earlier_result_does_not_stand_in_for_a_new_one(repository, capsys):
    repository(writing())
    assert cli.main("reproduce --tables 1 -o run".split()) == 0
    repository("pass")
    assert cli.main("reproduce --tables 1 -o run".split()) == 1
    assert "wrote no" in capsys.readouterr().err
    assert Path("run/results/table1_vist.json").is_file(), "what was computed stays"


def test_a_notebook_that_does_not_read_an_option_is_refused(repository, capsys):
    repository(writing(), parameters("num_stories").replace("run_seed", "runseed"))
    assert cli.main("reproduce --tables 1 -o run".split()) == 2
    assert "has no parameter 'run_seed'" in capsys.readouterr().err


def test_a_run_folder_that_is_a_file_is_refused(repository, capsys):
    repository(writing())
    Path("run").write_text("")
    assert cli.main("reproduce --tables 1 -o run".split()) == 2
    assert "run is not a folder" in capsys.readouterr().err


def test_figures_come_from_the_notebook_when_none_are_named(tmp_path):
    cell = new_code_cell(
        "x", outputs=[nbformat.v4.new_output("display_data", data={"image/png": "QUJD\nREVG\n"})]
    )
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "10_reproduce_table1_vist.ipynb"
    nbformat.write(new_notebook(cells=[cell]), path)
    result = summary.complete({**RESULT, "figures": []})
    html = page.as_html(tmp_path, {"t": result}, [], {"profile": "mini"})
    assert 'src="data:image/png;base64,QUJDREVG"' in html


def test_default_run_folder_is_of_today_and_in_the_repository():
    folder = reproduce.default_output_dir()
    assert folder.parent.name == "runs" and re.fullmatch(r"\d{4}-\d\d-\d\d", folder.name)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A pretended data folder of one weight file with its manifest."""
    from gill_lite.cli import doctor

    folder = tmp_path / "data" / "mini"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    manifest = {"files": {"a.bin": {"sha256": digest, "bytes": 3}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(doctor, "DATA", tmp_path / "data")
    return folder


def test_doctor_tells_versions_and_whole_weights(weights, capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for line in (r"^torch +2\.", r"^cores +\d"):
        assert re.search(line, out, re.MULTILINE)
    assert "all 1 files are as the manifest says" in out


@pytest.mark.parametrize("damage", ["changed", "missing", "no manifest", "broken manifest"])
def test_doctor_names_the_bad_file(weights, capsys, damage):
    if damage == "changed":
        (weights / "a.bin").write_bytes(b"abd")
    elif damage == "missing":
        (weights / "a.bin").unlink()
    elif damage == "no manifest":
        (weights / "manifest.json").unlink()
    else:
        (weights / "manifest.json").write_text("{")
    assert cli.main(["doctor"]) == 2
    told = capsys.readouterr().err
    assert ("manifest.json" if "manifest" in damage else "a.bin") in told
    assert told.count("\n") == 1
