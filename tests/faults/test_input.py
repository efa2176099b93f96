"""Pictures and captions as they should not be: told in one sentence, or read all the same.

What a file alone can tell is in test_datasets; here the commands and the training are asked.
"""

import gzip
import io
import json
import os
import re
import shutil
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gill_lite import profiles
from gill_lite.cli import main as cli
from gill_lite.datasets.captions import pairs_dataset, read_captions
from gill_lite.datasets.images import open_image
from gill_lite.datasets.partiprompts import read_partiprompts
from gill_lite.datasets.shards import read_shards
from gill_lite.datasets.visdial import read_visdial
from gill_lite.datasets.vist import read_vist
from gill_lite.errors import GillError
from gill_lite.files import read_json, shipped
from gill_lite.model.backbones import load_backbones
from gill_lite.model.checkpoint import joints_folder
from gill_lite.training.data import Loading
from gill_lite.world.export import write_captions, write_visdial, write_vist
from tests.datasets.test_datasets import png_that_claims
from tests.helpers import tiny_backbones, tiny_evaluation, tiny_launch
from tests.helpers.places import RECORDINGS
from tests.helpers.tiny_commands import told

RED, GREEN = (200, 30, 30), (30, 200, 30)


def plain(size=(16, 16), color=RED) -> Image.Image:
    return Image.new("RGB", size, color)


def encoded(image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def near(image, color) -> bool:
    return all(abs(a - b) < 6 for a, b in zip(image.getpixel((0, 0)), color, strict=True))


# ---- pictures ----------------------------------------------------------------------------


def test_postscript_named_jpg_starts_no_interpreter(tmp_path):
    (tmp_path / "x.jpg").write_bytes(encoded(plain(), "EPS"))
    with pytest.raises(GillError, match="x.jpg is not a picture in a format"):
        open_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, kind):
    frames = [plain(color=GREEN)] * 3
    (tmp_path / "x").write_bytes(encoded(plain(), kind, save_all=True, append_images=frames))
    with Image.open(tmp_path / "x") as stored:
        assert stored.n_frames >= 2, "it is an animation"
    opened = open_image(tmp_path / "x")
    assert (opened.mode, opened.size) == ("RGB", (16, 16)) and near(opened, RED)


def bad_pictures() -> dict[str, tuple[bytes, str]]:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    jpeg = encoded(Image.fromarray(noise), "JPEG")
    return {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "is damaged or cut off"),
        "empty.png": (b"", "is empty (zero bytes); fetch it again"),
        "page.jpg": (b"<!DOCTYPE html><html>404</html>", "is a web page, not a picture"),
        "bomb.png": (png_that_claims(14_143), "is too large to open safely: "),
        "strip.png": (encoded(plain((1, 5000)), "PNG"), "is a strip of 1x5000 pixels; at most 200"),
    }


@pytest.mark.parametrize("name", bad_pictures())
def test_a_bad_picture_in_chat_is_one_sentence(tmp_path, capsys, name):
    content, sentence = bad_pictures()[name]
    (tmp_path / name).write_bytes(content)
    assert cli.main(["chat", "look .", f"@{tmp_path / name}"]) == 2
    assert f"image {tmp_path / name} {sentence}" in told(capsys)


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (3, 3), (2, 300)])
def test_tiny_and_narrow_pictures_train_as_large_ones_of_their_colour(tmp_path, size):
    pairs = [("a", "small.png", plain(size)), ("b", "large.png", plain((32, 32)))]
    write_captions(tmp_path / "c.tsv", tmp_path, pairs)
    pairs = pairs_dataset(tmp_path / "c.tsv", tmp_path)
    loading = Loading(pairs, tiny_backbones.backbones().image_processor, None)
    (batch,) = loading.batches([[(0, 0), (0, 1)]])
    assert batch.images.shape == (2, 3, 16, 16)
    np.testing.assert_allclose(batch.images[0], batch.images[1], atol=1e-5)


# ---- data folders ------------------------------------------------------------------------


def refuse_to_load(monkeypatch) -> None:
    def load(*_, **__):
        raise AssertionError("the models were loaded before the data were looked at")

    monkeypatch.setattr("gill_lite.model.backbones.load_backbones", load)


def test_training_tells_that_all_images_are_missing_before_it_loads_models(
    tmp_path, monkeypatch, capsys
):
    refuse_to_load(monkeypatch)
    (tmp_path / "images").mkdir()
    lines = "".join(f"word {i}\t{i}.jpg\n" for i in range(5000))
    (tmp_path / "c.tsv").write_text("caption\timage\n" + lines)
    typed = ["train", "--captions", str(tmp_path / "c.tsv"), "--images", str(tmp_path / "images")]
    started = time.perf_counter()
    assert cli.main([*typed, "-o", str(tmp_path / "out")]) == 2
    assert time.perf_counter() - started < 30
    assert "all of its first 1000 examples are unusable (missing image 1000;" in told(capsys)


def official_files(folder, count: int) -> dict:
    """Files of stories and dialogues whose picture folders are empty."""
    (folder / "images").mkdir()
    names = ("story_id", "photo_flickr_id", "text", "worker_arranged_photo_order")
    panels = [(str(s), f"{s}-{n}", "hello", n) for s in range(count) for n in range(5)]
    vist = {"annotations": [[dict(zip(names, panel))] for panel in panels]}
    turns = [{"question": 0, "answer": 0}] * 10
    dialogs = [{"image_id": i, "caption": "", "dialog": turns} for i in range(count)]
    visdial = {"data": {"dialogs": dialogs, "questions": ["is it red"], "answers": ["yes"]}}
    for name, record in (("vist", vist), ("visdial", visdial)):
        (folder / f"{name}.json").write_text(json.dumps(record))


@pytest.mark.parametrize(("table", "name"), [("1", "vist"), ("2", "visdial")])
@pytest.mark.parametrize(
    ("count", "sentence"),
    [(3, "3 of 3 examples are unusable (missing image 3;"), (3000, "all of its first 1000 ")],
)
def test_evaluation_tells_that_all_images_are_missing(
    tmp_path, monkeypatch, capsys, table, name, count, sentence
):
    refuse_to_load(monkeypatch)
    official_files(tmp_path, count)
    typed = [f"--{name}-json={tmp_path / name}.json", f"--{name}-images={tmp_path / 'images'}"]
    assert cli.main(["evaluate", table, *typed, "-o", str(tmp_path / "out")]) == 2
    assert sentence in told(capsys)


@pytest.mark.parametrize("content", [lambda b: b[:1500], lambda b: b"", lambda b: b"<html>"],
                         ids=["cut", "empty", "web page"])  # fmt: skip
def test_a_story_whose_picture_is_damaged_is_skipped_until_it_is_whole(tmp_path, capsys, content):
    given = [*tiny_evaluation.photographs(tmp_path, 6, 0), *tiny_evaluation.save_paper(tmp_path)]
    picture, folder = tmp_path / "stories" / "21.png", tmp_path / "run"
    whole = picture.read_bytes()
    picture.write_bytes(content(whole))

    def evaluate(*more):
        typed = ["evaluate", "1", *given, "-o", str(folder), f"--cache={tmp_path / 'c'}", *more]
        assert cli.main(typed) == 0
        result = read_json(folder / "results" / "table1_vist.json")
        return result["counts"], result["provenance"]["inputs"]["data"]

    counts, data = evaluate()
    assert (counts["scored"], counts["skipped"]) == (25, {"unreadable image": 5})
    assert (data["usable"], data["skipped"]) == (5, {"unreadable image": 1})
    picture.unlink()
    assert evaluate()[0]["scored"] == 25
    picture.write_bytes(whole)
    assert evaluate()[0] == {"scored": 30, "eligible": 30, "skipped": {}}
    capsys.readouterr()
    picture.write_bytes(content(whole))
    typed = ["evaluate", "1", *given, "-o", str(tmp_path / "new"), "--max-skipped=0.1"]
    assert cli.main(typed) == 2
    assert "1 of 6 examples are unusable (unreadable image 1; at most 10% may be" in told(capsys)


# ---- captions ----------------------------------------------------------------------------

TEXTS = [
    *("nan", "NaN", "NA", "None", "#", "\\t", "a\ttab", '"', '""', '"open', 'a "quoted" word'),
    "a ball \N{BALLOON} \U0001f469\u200d\U0001f680",  # an astronaut is three code points
    "\u05e9\u05dc\u05d5\u05dd \u200f\u0645\u0631\u062d\u0628\u0627 !",  # Hebrew, a mark, Arabic
    *("e\u0301 and \u00e9", "\ufeffstart", "a\u2028b\x85c", " lead and trail "),
    *("[IMG0]", "<|image|>", "word " * 2000),
]


def test_captions_come_back_as_they_were_written(tmp_path):
    pairs = [(text, f"{i}.png", plain((2, 2))) for i, text in enumerate(TEXTS)]
    write_captions(tmp_path / "c.tsv", tmp_path / "images", pairs)
    read = read_captions(tmp_path / "c.tsv", tmp_path / "images", strict=True).examples
    assert [pair.caption.encode() for pair in read] == [text.encode() for text in TEXTS]
    trained_on = pairs_dataset(tmp_path / "c.tsv", tmp_path / "images", strict=True)
    assert [trained_on[i][1] for i in range(len(TEXTS))] == TEXTS


def test_stories_and_dialogues_come_back_as_they_were_written(tmp_path):
    texts = [*TEXTS, "two\nlines", "two\r\nlines"]
    stories = [(str(s), [(f"{s}-{n}", text, plain((2, 2))) for n in range(5)])
               for s, text in enumerate(texts)]  # fmt: skip
    write_vist(tmp_path / "vist.json", tmp_path / "vist", stories)
    read = read_vist(tmp_path / "vist.json", tmp_path / "vist", strict=True).examples
    assert [story.captions for story in read] == [(text,) * 5 for text in texts]
    rounds = [(i, "", [(text, text)] * 10, plain((2, 2))) for i, text in enumerate(texts)]
    write_visdial(tmp_path / "visdial.json", tmp_path / "visdial", rounds)
    read = read_visdial(tmp_path / "visdial.json", tmp_path / "visdial", strict=True).examples
    assert [dialogue.rounds[9] for dialogue in read] == [(text, text) for text in texts]


def test_shard_captions_come_back_as_they_were_written(tmp_path):
    texts = [text.strip() for text in TEXTS]  # img2dataset ends none in a blank
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for i, text in enumerate(texts):
            members = ((f"{i:09d}.png", encoded(plain(), "PNG")), (f"{i:09d}.txt", text.encode()))
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert [caption for _, caption in read_shards(tmp_path, strict=True)] == texts


@pytest.mark.parametrize("text", ["two\nlines", "two\r\nlines", "two\rlines"])
def test_a_caption_that_its_readers_could_not_read_is_not_written(tmp_path, text):
    with pytest.raises(GillError, match="the caption of a.png has a line break; .*c.tsv cannot"):
        write_captions(tmp_path / "c.tsv", tmp_path, [(text, "a.png", plain())])
    assert not (tmp_path / "c.tsv").exists()


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_captions_saved_on_windows(tmp_path, start):
    lines = ["caption\timage", "a red ball\ta.png", '"a ""q"" box"\ta.png', "", ""]
    (tmp_path / "c.tsv").write_bytes(start + "\r\n".join(lines).encode())
    plain().save(tmp_path / "a.png")
    read = read_captions(tmp_path / "c.tsv", tmp_path, strict=True)
    assert [pair.caption for pair in read.examples] == ["a red ball", 'a "q" box']
    assert pairs_dataset(tmp_path / "c.tsv", tmp_path, strict=True)[1][1] == 'a "q" box'


def test_votes_saved_on_windows(tmp_path):
    lines = ["Prompt\tCategory\tChallenge\tNote\tDecisions", "a cat\tA\tB\t\tgen,ret,gen,gen,same"]
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "p.tsv").write_bytes("\r\n".join([*lines, ""]).encode(encoding))
        (prompt,) = read_partiprompts(tmp_path / "p.tsv").examples
        assert prompt.votes == ("gen", "ret", "gen", "gen", "same") and prompt.label == "gen"
    (tmp_path / "p.tsv").write_bytes("\r\n".join([*lines, ""]).encode("utf-16"))
    with pytest.raises(GillError, match=r"p.tsv is not UTF-8 text \(UTF-16\); save it as UTF-8"):
        read_partiprompts(tmp_path / "p.tsv")


def test_captions_with_line_breaks_as_pandas_writes_them(tmp_path):
    import pandas as pd

    texts = ['first\nsecond "line"', "one", "a\n\nb", "end\n"]
    frame = pd.DataFrame({"caption": texts, "image": ["a.png"] * 4})
    plain().save(tmp_path / "a.png")
    for columns in (["caption", "image"], ["image", "caption"]):
        frame[columns].to_csv(tmp_path / "c.tsv", sep="\t", index=False)
        read = read_captions(tmp_path / "c.tsv", tmp_path, strict=True)
        assert [pair.caption for pair in read.examples] == texts
        pairs = pairs_dataset(tmp_path / "c.tsv", tmp_path, strict=True)
        assert [pairs[i][1] for i in range(4)] == texts
    with open(tmp_path / "c.tsv", "a") as file:
        file.write("a.png\n")
    with pytest.raises(GillError, match="line 10 of .* does not have two columns"):
        read_captions(tmp_path / "c.tsv", tmp_path, strict=True)


@pytest.mark.parametrize("kind", ["captions", "json", "shards", "folder of shards"])
def test_what_is_still_compressed_is_told(tmp_path, kind):
    path = tmp_path / "0.tar.gz"
    path.write_bytes(gzip.compress(b"caption\timage\n"))
    read = {
        "captions": lambda: read_captions(path, tmp_path),
        "json": lambda: read_vist(path, tmp_path),
        "shards": lambda: read_shards(path.rename(tmp_path / "0.tar")),
        "folder of shards": lambda: read_shards(tmp_path),
    }
    with pytest.raises(GillError, match=r"0.tar\S* is compressed \(gzip\).* gunzip$"):
        read[kind]()


POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
WITH_A_POINTER = {  # what is typed, and the file that is still to come
    "picture": (["chat", "@a.png"], "a.png"),
    "joints": (["chat", "hello", "--joints=joints"], "joints/joints.safetensors"),
    "their sizes": (["chat", "hello", "--joints=joints"], "joints/config.json"),
    "decision": (["chat", "hello", "--joints=joints"], "joints/decision.safetensors"),
    "stories": (["evaluate", "1", "--vist-json=v.json", "--vist-images=."], "v.json"),
    "votes": (["evaluate", "decide", "--partiprompts-tsv=v.tsv", "--joints=joints"], "v.tsv"),
    "captions": (["train", "--captions=c.tsv", "--images=."], "c.tsv"),
    "shards": (["train", "--shards=0.tar"], "0.tar"),
    "official": (["convert", "joints", "-o=new"], "joints/pretrained_ckpt.pth.tar"),
    "pictures": (["index", "mine", "-o=new"], "mine/a.png"),
}


@pytest.mark.parametrize("kind", WITH_A_POINTER)
def test_what_git_lfs_has_yet_to_bring_is_told(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(joints_folder("gill", 0), "joints")
    shutil.copy(RECORDINGS / "model_args.json", "joints")
    typed, name = WITH_A_POINTER[kind]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(POINTER)
    assert cli.main(typed) == 2
    last = capsys.readouterr().err.strip().split("\n")[-1]
    assert f"{name} is a Git LFS pointer, not the file itself: run `git lfs pull` where" in last


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_models_that_git_lfs_has_yet_to_bring_are_told(tmp_path, name):
    folder = shutil.copytree(shipped("mini/lm"), tmp_path / "lm")
    (folder / name).write_text(POINTER)
    with pytest.raises(GillError, match=f"lm/{name} is a Git LFS pointer.* `git lfs pull`"):
        load_backbones(profiles.PAPER, lm=folder)


def test_weights_that_may_not_be_read_are_told_so(tmp_path, monkeypatch):
    folder = shutil.copytree(shipped("mini/lm"), tmp_path / "lm")
    weights = folder / "model.safetensors"
    weights.write_bytes(b"")  # root may read everything, so what is told is tried on a broken one
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != weights)
    with pytest.raises(GillError, match="lm/model.safetensors cannot be read: .* change its right"):
        load_backbones(profiles.PAPER, lm=folder)


# ---- official files as they come ---------------------------------------------------------


def test_a_story_without_its_tokenised_text_has_its_original_one(tmp_path):
    stories = [(str(s), [(f"{s}-{n}", f"text {s}", plain((2, 2))) for n in range(5)])
               for s in range(4)]  # fmt: skip
    write_vist(tmp_path / "v.json", tmp_path / "v", stories)
    record = json.loads((tmp_path / "v.json").read_text())
    story = [panel for (panel,) in record["annotations"] if panel["story_id"] in ("0", "1")]
    for panel in story:
        panel["text"] = None
        panel["original_text"] = "As it was." if panel["story_id"] == "0" else None
    (tmp_path / "v.json").write_text(json.dumps(record))
    reading = read_vist(tmp_path / "v.json", tmp_path / "v")
    assert [story.captions[0] for story in reading.examples] == ["As it was.", "text 2", "text 3"]
    assert reading.skipped == {"empty caption": 1}


def test_the_split_of_visdial_without_answers_is_called_so(tmp_path, capsys):
    official_files(tmp_path, 3)
    record = json.loads((tmp_path / "visdial.json").read_text())
    for dialog in record["data"]["dialogs"]:
        dialog["dialog"] = [*dialog["dialog"][:4], {"question": 0}]
    (tmp_path / "visdial.json").write_text(json.dumps({**record, "split": "test"}))
    typed = [f"--visdial-json={tmp_path / 'visdial.json'}", f"--visdial-images={tmp_path}"]
    assert cli.main(["evaluate", "2", *typed, "-o", str(tmp_path / "out")]) == 2
    assert "is a split without its last answers (test), and ten whole rounds are" in told(capsys)


# ---- the workers of a data loader --------------------------------------------------------


@pytest.fixture
def training(tmp_path, monkeypatch, capfd):
    """`training(damaged)` is `gill-lite train` on 40 pairs with two workers; status, out, err."""
    tiny_backbones.save(tiny_backbones.backbones(), tmp_path)
    monkeypatch.setitem(profiles.PROFILES, "paper", profiles.PAPER.replace(**tiny_launch.TINY))
    texts = [tiny_launch.CAPTIONS[i % 10] for i in range(40)]
    pairs = [(text, f"{i:02d}.png", plain()) for i, text in enumerate(texts)]
    write_captions(tmp_path / "c.tsv", tmp_path / "images", pairs)

    def run(damaged: int):
        for i in range(damaged):
            (tmp_path / "images" / f"{i:02d}.png").write_bytes(b"<html>gone</html>")
        named = [f"--{name}={tmp_path / name}" for name in ("lm", "vision", "diffusion", "images")]
        typed = [*named, f"--captions={tmp_path / 'c.tsv'}", "--num-workers=2", "--batch-size=8"]
        status = cli.main(["train", "--profile=paper", *typed, "--steps=5", f"-o={tmp_path / 'o'}"])
        return status, *capfd.readouterr()

    return run


def test_pictures_skipped_in_workers_are_counted(training):
    status, out, err = training(damaged=3)
    assert status == 0, err
    # five batches of 8 are all 40 pairs; pair 2 gives way to 3, and 0 and 1 to all up to it
    said = re.search(r"c.tsv: (\d+) of (\d+) pictures opened were damaged", out)
    assert [int(number) for number in said.groups()] == [3 + 2 + 1, 40 + 3 + 2 + 1]
    assert "(unreadable image 6); the next one took each one's place" in out


def test_an_error_in_a_worker_is_one_sentence(training):
    status, out, err = training(damaged=40)
    assert status == 2
    assert "Traceback" not in err and "worker process" not in err
    last = err.splitlines()[-1]
    assert last.startswith("gill-lite: caption file ") and "11 of 11 pictures opened" in last
    assert "image " in last and "is a web page, not a picture" in last


def test_damage_spread_over_workers_stops_training(tmp_path):
    """Each worker sees too little of it to stop by itself."""
    pairs = [("a", f"{i}.png", plain((2, 2))) for i in range(40)]
    write_captions(tmp_path / "c.tsv", tmp_path, pairs)
    for i in range(0, 40, 2):
        (tmp_path / f"{i}.png").write_bytes(b"<html>gone</html>")
    pairs = pairs_dataset(tmp_path / "c.tsv", tmp_path, max_skipped=0.2)
    processor = tiny_backbones.backbones().image_processor
    order = [[(0, i), (0, i + 2)] for i in range(0, 32, 4)]  # damaged ones; each opens two more
    with pytest.raises(GillError, match=r"12 of 24 pictures .* damaged \(at most 20% may be, "):
        list(Loading(pairs, processor, None).batches(order, num_workers=2))
    assert pairs.damaged == Counter({"unreadable image": 12})
