"""The paper profile from the first download to the tables, as a user types it.

    gill-lite fetch      official checkpoint, CLIP, OPT, Stable Diffusion, VIST, VisDial
    gill-lite train      GILL's joints on two processes, on an official caption file
    gill-lite convert    the official checkpoint to our format, and our joints to the official one
    gill-lite evaluate   both of them on VIST and VisDial

Read `test_from_fetch_to_the_tables` first; below it stands each step, and at the end what stands
in for the internet. Names, commits, file formats and the sizes of the mapper (512 wide, 77 slots of
768) are the paper's. The frozen models are tiny and random, so the tables say nothing about GILL:
what is tested is that the way is open from end to end. It needs no network and no GPU.
"""

import io
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from gill_lite.files import read_json
from gill_lite.model import official
from gill_lite.model.checkpoint import read_joints
from gill_lite.model.gill import build_gill
from gill_lite.profiles import PAPER, REVISIONS
from gill_lite.world.export import export
from tests.helpers import tiny_backbones
from tests.helpers.local_server import LocalServer
from tests.helpers.places import ROOT

TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
STORIES = DIALOGUES = 4  # of each one loses its picture
STEPS = 2
MODELS = ("lm", "vision", "diffusion")  # as the profile calls them


def test_from_fetch_to_the_tables(here):
    """Every command runs in the folder `here`, where a user would sit."""
    with LocalServer() as internet:
        sources = serve_everything(internet, here / "upstream")
        fetch_models_and_data(here, internet, sources)
    train_on_two_processes(here)
    convert_the_official_model(here)
    convert_ours_for_the_official_code(here)
    evaluate(here, "1", "vist", "val.story-in-sequence.json", "val_images")
    check_table(here, "table1_vist", usable=STORIES - 1, baseline_contexts=2)
    evaluate(here, "2", "visdial", "visdial_1.0_val.json", "VisualDialog_val2018")
    check_table(here, "table2_visdial", usable=DIALOGUES - 1, baseline_contexts=3)


@pytest.fixture
def here(tmp_path):
    """An empty folder, emptied again: the joints have the paper's size, and so have their files."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def gill_lite(here: Path, *words, launcher=(), **environment) -> str:
    """`gill-lite WORDS...` in a process of its own, in the folder `here`; returns what it printed.

    launcher: what starts it instead of python itself, as torchrun does.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(here / "huggingface"),
        "HF_HUB_CACHE": str(here / "huggingface/hub"),  # where models are kept
        "HF_HUB_OFFLINE": "1",  # only `fetch` may download
        "no_proxy": "127.0.0.1",
        "ACCELERATE_USE_CPU": "true",  # the same numbers where there is a GPU
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    command = [sys.executable, *launcher, "-m", "gill_lite", *map(str, words)]
    done = subprocess.run(
        command, cwd=here, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ---- the steps ---------------------------------------------------------------------------


def fetch_models_and_data(here: Path, internet: LocalServer, sources: Path) -> None:
    """1. Download everything; what cannot be had is told and counted, the rest is checked."""
    names = ("gill", "clip", "opt", "sd", "vist", "visdial")
    told = gill_lite(
        here, "fetch", *names, "--sources", sources,
        HF_HUB_OFFLINE="0", HF_ENDPOINT=internet.url(),
    )  # fmt: skip
    for name in names:
        assert f"{name}: complete and checked" in told
    assert f"vist: 1 of {5 * STORIES} pictures cannot be had (answer 404 1)" in told
    opt = here / "huggingface/hub/models--facebook--opt-6.7b/snapshots" / REVISIONS[PAPER.lm]
    suffixes = {path.suffix for path in opt.iterdir()}
    assert suffixes == {".json", ".safetensors"}, "its pickles were converted and are not kept"


def train_on_two_processes(here: Path) -> None:
    """2. Train the joints between the fetched models on an official TSV and its folder."""
    told = gill_lite(
        here, "train", "--profile", "paper", "--steps", STEPS, "--batch-size", 8,
        "--captions", "upstream/captions/cc3m_val.tsv", "--images", "upstream/captions/images",
        "-o", "runs/trained", launcher=TWO_PROCESSES,
    )  # fmt: skip
    assert told.count("the joints are in runs/trained") == 1, "one process speaks for both"
    log = [json.loads(line) for line in (here / "runs/trained/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(STEPS))
    assert all(math.isfinite(row["loss"]) for row in log)


def convert_the_official_model(here: Path) -> None:
    """3. Turn the fetched checkpoint into ours; it remembers which bytes it was made from."""
    gill_lite(here, "convert", "data/paper/gill", "-o", "runs/official")
    saved = read_joints(here / "runs/official")
    assert (saved.config.mapper, saved.config.prompt_width) == ("gill", 768)
    fetched = read_json(here / "data/paper/checksums.json")["files"]
    for name, digest in saved.provenance["sources"].items():
        assert digest == fetched[f"gill/{name}"]["sha256"]
    assert (here / "runs/official/decision.safetensors").is_file()


def convert_ours_for_the_official_code(here: Path) -> None:
    """4. Write the trained joints as the official code reads them: other names, the same bits."""
    gill_lite(here, "convert", "runs/trained", "--to", "official", "-o", "runs/for_official_code")
    made = official.read_model(here / "runs/for_official_code")
    assert (made.args["opt_version"], made.args["visual_encoder"]) == (PAPER.lm, PAPER.vision)
    trained = read_joints(here / "runs/trained")
    assert made.config == trained.config
    expected = official.under_official_names(trained.joints, trained.config.mapper)
    assert made.state.keys() == expected.keys()
    assert all(torch.equal(made.state[name], value) for name, value in expected.items())


def evaluate(here: Path, number: str, task: str, annotations: str, pictures: str) -> None:
    """5. Compute a table on official files; the two folders of joints count as two seeds."""
    data = Path("data/paper") / task
    told = gill_lite(
        here, "evaluate", number, "--profile", "paper",
        f"--{task}-json", data / annotations, f"--{task}-images", data / pictures,
        "--joints", "runs/official", "runs/trained",
        "--num-inference-steps", 2, "--metrics", "clip_similarity",  # LPIPS downloads its AlexNet
        "-o", "runs/tables", "--cache", "runs/cache",
    )  # fmt: skip
    assert f"results: {here}/runs/tables/results/table{number}_{task}.json" in told


def check_table(here: Path, name: str, usable: int, baseline_contexts: int) -> None:
    """6. The table: a finite number in each cell, what was left out, and where it comes from."""
    result = read_json(here / f"runs/tables/results/{name}.json")
    measured = [row for row in result["rows"] if not row["undefined"]]
    cells = Counter((row["method"], row["metric"]) for row in measured)
    similarity = "CLIP similarity ↑"
    assert cells == {("Stable Diffusion", similarity): baseline_contexts, ("GILL", similarity): 3}
    for row in measured:
        assert (
            row["low"] <= row["mean"] <= row["high"]
            and -1 <= row["mean"] <= 1
            and row["n"] == usable
        )
    cells = baseline_contexts + 2 * 3  # GILL's two folders, three contexts each
    pictures, lost = usable * cells, {"missing image": cells}
    assert result["counts"] == {"scored": pictures, "eligible": pictures + cells, "skipped": lost}
    about, inputs = result["provenance"], result["provenance"]["inputs"]
    assert about["command"].startswith(f"gill-lite evaluate {name[5]} --profile paper")
    data = {key: value for key, value in inputs["data"].items() if key != "sha256"}
    skipped = {"missing image": 1}
    assert data == {"eligible": usable + 1, "usable": usable, "taken": usable, "skipped": skipped}
    assert [inputs["profile"][what] for what in MODELS] == [getattr(PAPER, w) for w in MODELS]
    scores = pd.read_csv(here / f"runs/tables/results/{name}_scores.csv")
    assert len(scores) == pictures and scores["clip_similarity"].notna().all()
    by_seed = scores[scores["method"] == "gill"].groupby("seed")["clip_similarity"].mean()
    assert by_seed[0] != by_seed[1], "the fetched joints and ours are two models"


# ---- what stands in for the internet -----------------------------------------------------


def serve_everything(internet: LocalServer, folder: Path) -> Path:
    """Serve tiny models and the mini world's pictures as upstream does; returns --sources."""
    export(folder, num_stories=STORIES, num_dialogues=DIALOGUES, num_captions=16)
    backbones = tiny_paper_backbones()
    serve_models(internet, folder / "models", backbones)
    files = {
        "gill": official_checkpoint(backbones),
        "vist": {"vist/SIS-with-labels.tar.gz": vist_archive(internet, folder / "vist")},
        "visdial": visdial_archives(folder / "visdial"),
    }
    changes = {
        source: {"files": {
            name: {"url": internet.add(f"/{name}", content), "size": len(content)}
            for name, content in contents.items()
        }}
        for source, contents in files.items()
    }  # fmt: skip
    for about in changes["gill"]["files"].values():
        about["sha256"] = None  # the table knows those of the true files
    changes["vist"]["pictures_size"] = 1_000_000
    path = folder / "sources.json"
    path.write_text(json.dumps(changes))
    return path


def tiny_paper_backbones():
    """Tiny random models with room for ten rounds and prompt embeddings as wide as SD 1.5's."""
    tiny = tiny_backbones.backbones()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny.lm = tiny_backbones.language_model(len(tiny.tokenizer), positions=512)
        tiny.pipeline = tiny_backbones.pipeline(tiny_backbones.text_encoder_config(768))
    return tiny


def serve_models(internet: LocalServer, folder: Path, backbones) -> None:
    """Each model under the paper's name and commit; OPT's weights as pickles only, as there."""
    tiny_backbones.save(backbones, folder)
    (folder / "lm/model.safetensors").unlink()
    torch.save(backbones.lm.state_dict(), folder / "lm/pytorch_model.bin")
    for what in MODELS:
        name = getattr(PAPER, what)
        internet.add_model(name, REVISIONS[name], folder / what)


def official_checkpoint(backbones) -> dict[str, bytes]:
    """A random GILL of the paper's sizes between these models, as the official files."""
    gill = build_gill(PAPER, backbones, seed=1)
    args = official.official_args(gill.config, {"opt_version": PAPER.lm})
    width = backbones.lm.config.hidden_size
    classifier = {"1.weight": torch.eye(2, width), "1.bias": torch.zeros(2)}
    return {
        f"gill/{official.ARGS}": json.dumps(args).encode(),
        f"gill/{official.WEIGHTS}": saved(tiny_backbones.official_state(gill)),
        f"gill/{official.DECISION}": saved(classifier),
    }


def saved(state: dict) -> bytes:
    """What torch.save writes of it."""
    buffer = io.BytesIO()
    torch.save({"state_dict": state}, buffer)
    return buffer.getvalue()


def vist_archive(internet: LocalServer, folder: Path) -> bytes:
    """VIST's archive; its pictures lie at the URLs it names, but for one that is gone."""
    record = read_json(folder / "val.story-in-sequence.json")
    for image in record["images"]:
        picture = (folder / f"val_images/{image['id']}.png").read_bytes()
        image["url_o"] = internet.add(f"/photos/{image['id']}.png", picture)
    gone = record["annotations"][-1][0]["photo_flickr_id"]
    del internet.files[f"/photos/{gone}.png"]
    content, buffer = json.dumps(record).encode(), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("sis/val.story-in-sequence.json")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def visdial_archives(folder: Path) -> dict[str, bytes]:
    """VisDial's two archives; the second lacks one picture."""
    dialogues, pictures = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(dialogues, "w") as archive:
        archive.write(folder / "visdial_1.0_val.json", "visdial_1.0_val.json")
    with zipfile.ZipFile(pictures, "w") as archive:
        for path in sorted((folder / "VisualDialog_val2018").iterdir())[1:]:
            jpeg = io.BytesIO()
            Image.open(path).save(jpeg, "JPEG")
            archive.writestr(f"VisualDialog_val2018/{path.stem}.jpg", jpeg.getvalue())
    return {
        "visdial/visdial_1.0_val.zip": dialogues.getvalue(),
        "visdial/VisualDialog_val2018.zip": pictures.getvalue(),
    }
