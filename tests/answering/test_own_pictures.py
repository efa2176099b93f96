"""`gill-lite index`: a folder of pictures, and answers that show those that fit."""

from pathlib import Path

import pytest
from PIL import Image

from gill_lite.answering.index import load_index
from gill_lite.answering.own_pictures import index_folder
from gill_lite.answering.respond import Responder
from gill_lite.cli import main as cli
from gill_lite.errors import GillError
from gill_lite.files import read_json
from gill_lite.model.checkpoint import save_joints
from gill_lite.model.gill import build_gill
from tests.helpers import tiny_evaluation


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "my pictures"
    (folder / "2024").mkdir(parents=True)
    for name in ("red.jpg", "2024/blue.PNG"):
        Image.new("RGB", (90, 60), Path(name).stem).save(folder / name)
    (folder / "page.png").write_bytes(b"<html>")
    (folder / "notes.txt").write_text("no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    return folder


def test_answers_show_pictures_of_ones_own_folder(pictures, tmp_path, capsys):
    out = tmp_path / "mine"
    assert cli.main(["index", str(pictures), "-o", str(out)]) == 0
    told = "2 of 4 pictures indexed; skipped 2 (unreadable image 2)"
    assert told in capsys.readouterr().out
    assert list(load_index(out).ids) == ["2024/blue.PNG", "red.jpg"]
    typed = ["chat", "a big red ball .", "--force-image", "--no-draw", "--joints", str(out)]
    assert cli.main([*typed, "-o", str(tmp_path / "chat")]) == 0
    (turn,) = read_json(tmp_path / "chat" / "conversation.json")["turns"]
    (shown,) = [item for item in turn["answer"] if "retrieved" in item]
    assert shown["retrieved"][0]["id"] in ("red.jpg", "2024/blue.PNG")
    with Image.open(next((tmp_path / "chat").glob("*retrieved1.png"))) as image:
        assert image.size == (90, 60), "the picture itself"
    Image.new("RGB", (90, 60), "green").save(pictures / "green.jpg")
    assert cli.main(["index", str(pictures), "-o", str(out)]) == 0, "again, with one more"
    assert list(load_index(out).ids) == ["2024/blue.PNG", "green.jpg", "red.jpg"]
    assert cli.main(["index", str(pictures / "2024"), "-o", str(out)]) == 2
    assert "index is of other pictures; remove it or name another" in capsys.readouterr().err


def test_folders_that_cannot_be_indexed(pictures, tmp_path):
    tiny = tiny_evaluation.backbones()
    responder = Responder(tiny, build_gill(tiny.profile, tiny))
    joints = save_joints(responder.gill, tmp_path / "joints", {})
    with pytest.raises(GillError, match="2 of 4 examples are unusable .*at most 40%"):
        index_folder(responder, pictures, joints, joints, max_skipped=0.4)
    assert load_index(joints) is None
    assert len(index_folder(responder, pictures, joints, joints)) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(GillError, match="empty holds no examples"):
        index_folder(responder, tmp_path / "empty", joints, tmp_path / "other")
    with pytest.raises(GillError, match="there is no folder .*nowhere to index"):
        index_folder(responder, tmp_path / "nowhere", joints, tmp_path / "other")
