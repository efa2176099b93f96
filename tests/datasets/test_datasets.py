"""Readers of the official formats, the export of the mini world into them, and real data."""

import io
import json
import pickle
import struct
import tarfile
import time
import warnings
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from gill_lite.datasets.captions import pairs_dataset, read_captions
from gill_lite.datasets.images import SUFFIXES, open_image, squash, starts_like_a_picture
from gill_lite.datasets.partiprompts import confident_label, read_partiprompts
from gill_lite.datasets.reading import PROBE
from gill_lite.datasets.shards import find_shards, read_shards
from gill_lite.datasets.visdial import read_visdial
from gill_lite.datasets.vist import read_vist
from gill_lite.errors import GillError
from gill_lite.evaluation.tasks import VISDIAL_CONTEXTS, VIST_CONTEXTS, visdial_text, vist_prompt
from gill_lite.world import export as ex
from gill_lite.world.language import dialogue_text
from gill_lite.world.scene import is_novel
from tests.helpers.places import RECORDINGS

ALIGNMENT = RECORDINGS / "PartiPromptsAllDecisions_Alignment.tsv"
REALISM = RECORDINGS / "PartiPromptsAllDecisions_Realism.tsv"


def picture(color=(200, 30, 30), size=(8, 6)) -> Image.Image:
    return Image.new("RGB", size, color)


def panels(start: int, count: int = 5) -> list:
    return [(str(start + i), f"caption {start + i}", picture()) for i in range(count)]


def write_vist(tmp_path, stories):
    json_path, images = tmp_path / "val.story-in-sequence.json", tmp_path / "val_images"
    ex.write_vist(json_path, images, stories)
    return json_path, images


def edit(json_path, change) -> None:
    record = json.loads(json_path.read_text())
    change(record)
    json_path.write_text(json.dumps(record))


def tree_bytes(root) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


# ---- images ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "F"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg", "F": "tiff"}.get(mode, "png")
    if mode in ("I;16", "F"):
        image = Image.fromarray(np.full((6, 8), 65535, np.uint16 if mode == "I;16" else np.float32))
    else:
        image = Image.new("RGB", (8, 6), "white").convert(mode)
    image.save(tmp_path / f"x.{suffix}")
    opened = open_image(tmp_path / f"x.{suffix}")
    assert (opened.mode, opened.size) == ("RGB", (8, 6))
    assert opened.getpixel((3, 3)) == (255, 255, 255)


def test_middle_grey_of_16_bits_stays_middle_grey(tmp_path):
    Image.fromarray(np.full((4, 4), 128 * 257, np.uint16)).save(tmp_path / "x.png")
    assert open_image(tmp_path / "x.png").getpixel((0, 0)) == (128, 128, 128)


def test_transparent_parts_become_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "x.png")
    assert open_image(tmp_path / "x.png").getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied(tmp_path):
    image = picture((0, 0, 255), (16, 8))
    image.paste((255, 0, 0), (0, 0, 8, 8))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    image.save(tmp_path / "x.png", exif=exif)
    opened = open_image(tmp_path / "x.png")
    assert opened.size == (8, 16)
    assert opened.getpixel((4, 2)) == (255, 0, 0) and opened.getpixel((4, 13)) == (0, 0, 255)


def test_bad_images_are_named_with_the_reason(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    Image.fromarray(noise).save(tmp_path / "whole.png")
    cases = {
        "empty.jpg": (b"", "empty"),
        "page.jpg": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        "text.png": (b"hello", "not a picture"),
        "cut.jpg": ((tmp_path / "whole.jpg").read_bytes()[:900], "damaged or cut off"),
        "cut.png": ((tmp_path / "whole.png").read_bytes()[:900], "damaged or cut off"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GillError, match=reason) as caught:
            open_image(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(GillError, match="gone.png is missing"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(GillError, match="cannot be read"):
        open_image(tmp_path)


def png_that_claims(side: int) -> bytes:
    """A tiny PNG whose header claims side x side pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(100))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("side", [10_000, 20_000])  # PIL warns of the first, refuses the second
def test_decompression_bomb_is_refused(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_that_claims(side))
    with pytest.raises(GillError, match="bomb.png is too large"):
        open_image(tmp_path / "bomb.png")


def test_squash_keeps_the_whole_picture():
    image = picture((0, 0, 255), (40, 10))
    image.paste((255, 0, 0), (0, 0, 20, 10))
    small = squash(image, 8)
    assert small.size == (8, 8)
    assert small.getpixel((0, 4)) == (255, 0, 0) and small.getpixel((7, 4)) == (0, 0, 255)


# ---- VIST --------------------------------------------------------------------------------


def test_vist_panels_follow_the_writers_order_as_text_or_number(tmp_path):
    json_path, images = write_vist(tmp_path, [("7", panels(10)), ("8", panels(20))])

    def shuffle(record):
        record["annotations"].reverse()
        for annotation in record["annotations"]:
            panel = annotation[0]
            panel["worker_arranged_photo_order"] = str(panel["worker_arranged_photo_order"])

    edit(json_path, shuffle)
    (images / "10.png").rename(images / "10.JPG")  # any suffix, any case
    reading = read_vist(json_path, images, strict=True)
    assert (reading.eligible, reading.skipped) == (2, Counter())
    by_id = {story.story_id: story for story in reading.examples}
    assert by_id["7"].captions == tuple(f"caption {i}" for i in range(10, 15))
    assert by_id["7"].photo_ids == ("10", "11", "12", "13", "14")
    assert [path.name for path in by_id["7"].image_paths][:2] == ["10.JPG", "11.png"]


def drop_panel(record):
    del record["annotations"][0]


def extra_panel(record):
    record["annotations"].append(record["annotations"][0])


def same_order(record):
    record["annotations"][0][0]["worker_arranged_photo_order"] = 1


def broken_order(record):
    record["annotations"][0][0]["worker_arranged_photo_order"] = "first"


def no_text(record):
    record["annotations"][2][0]["text"] = "  "


def other_photo(record):
    record["annotations"][4][0]["photo_flickr_id"] = "999"


@pytest.mark.parametrize(
    ("change", "reason", "names"),
    [
        (drop_panel, "fewer than five panels", "has 4 panels"),
        (extra_panel, "more than five panels", "has 6 panels"),
        (same_order, "repeated panel order", "same place"),
        (broken_order, "broken panel order", "'first'"),
        (no_text, "empty caption", "without text"),
        (other_photo, "missing image", "image 999"),
    ],
)
def test_vist_unusable_story_is_counted_or_strictly_named(tmp_path, change, reason, names):
    json_path, images = write_vist(tmp_path, [(str(i), panels(10 * i)) for i in (1, 2, 3)])
    edit(json_path, change)
    reading = read_vist(json_path, images)
    assert [story.story_id for story in reading.examples] == ["2", "3"]
    assert (reading.eligible, reading.skipped) == (3, Counter({reason: 1}))
    with pytest.raises(GillError, match="story 1") as caught:
        read_vist(json_path, images, strict=True)
    assert names in str(caught.value)


def test_vist_too_much_unusable_is_an_error_naming_the_file(tmp_path):
    json_path, images = write_vist(tmp_path, [(str(i), panels(10 * i)) for i in (1, 2, 3)])
    (images / "10.png").unlink()
    (images / "24.png").unlink()
    with pytest.raises(GillError, match=r"story-in-sequence.json: 2 of 3 .* image 10 of story 1"):
        read_vist(json_path, images)
    assert len(read_vist(json_path, images, max_skipped=0.7).examples) == 1
    (images / "34.png").unlink()
    with pytest.raises(GillError, match="3 of 3"):
        read_vist(json_path, images, max_skipped=1.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "broken JSON at line 1"),
        ("[]", "holds a JSON list"),
        ("{}", "lacks 'annotations'"),
        ('{"annotations": []}', "holds no examples"),
        ('{"annotations": [{}]}', "annotation 0 is not a list"),
        ('{"annotations": [[{}]]}', "lacks 'story_id'"),
    ],
)
def test_vist_broken_file_is_one_sentence_naming_it(tmp_path, content, says):
    (tmp_path / "val.json").write_text(content)
    with pytest.raises(GillError, match=says) as caught:
        read_vist(tmp_path / "val.json", tmp_path)
    assert "val.json" in str(caught.value) and "\n" not in str(caught.value)


def test_vist_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(GillError, match="gone.json is missing"):
        read_vist(tmp_path / "gone.json", tmp_path)
    json_path, _ = write_vist(tmp_path, [("1", panels(1))])
    with pytest.raises(GillError, match="image folder .*gone is missing"):
        read_vist(json_path, tmp_path / "gone")


# ---- VisDial -----------------------------------------------------------------------------


def write_visdial(tmp_path, ids=(1, 2, 3)):
    json_path, images = tmp_path / "visdial_1.0_val.json", tmp_path / "VisualDialog_val2018"
    rounds = [(f"is it {i} ?", f"yes , {i} .") for i in range(10)]
    ex.write_visdial(json_path, images, [(i, f"picture {i}", rounds, picture()) for i in ids])
    return json_path, images, rounds


def test_visdial_round_trip_is_exact(tmp_path):
    json_path, images, rounds = write_visdial(tmp_path)
    reading = read_visdial(json_path, images, strict=True)
    assert [dialogue.image_id for dialogue in reading.examples] == [1, 2, 3]
    assert reading.examples[1].caption == "picture 2"
    assert reading.examples[1].image_path.name == "VisualDialog_val2018_000000000002.png"
    # the files hold no question marks, the evaluation adds them: the model sees what was said
    assert visdial_text(reading.examples[0], VISDIAL_CONTEXTS["rounds10"]) == dialogue_text(rounds)
    assert (
        visdial_text(reading.examples[0], VISDIAL_CONTEXTS["rounds1"])
        == "Q: is it 0 ?\nA: yes , 0 ."
    )


def few_rounds(record):
    del record["data"]["dialogs"][0]["dialog"][0]


def out_of_range(record):
    record["data"]["dialogs"][0]["dialog"][3]["answer"] = 10_000


def repeated(record):
    record["data"]["dialogs"][2]["image_id"] = 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (few_rounds, "fewer than ten rounds"),
        (out_of_range, "text number out of range"),
        (repeated, "repeated image id"),
    ],
)
def test_visdial_unusable_dialogue_is_counted_or_strictly_named(tmp_path, change, reason):
    json_path, images, _ = write_visdial(tmp_path)
    edit(json_path, change)
    reading = read_visdial(json_path, images)
    assert len(reading.examples) == 2 and reading.skipped == Counter({reason: 1})
    with pytest.raises(GillError, match="dialogue about image"):
        read_visdial(json_path, images, strict=True)


def test_visdial_missing_image_is_named(tmp_path):
    json_path, images, _ = write_visdial(tmp_path)
    (images / "VisualDialog_val2018_000000000003.png").unlink()
    assert read_visdial(json_path, images).skipped == Counter({"missing image": 1})
    with pytest.raises(GillError, match="VisualDialog_val2018_000000000003"):
        read_visdial(json_path, images, strict=True)


# ---- captions ----------------------------------------------------------------------------


def test_captions_read_as_pandas_reads_them(tmp_path):
    import pandas as pd

    texts = ['a "quoted" word', '"all quoted"', "a\ttab", "null", "plain"]
    pairs = [(text, f"{i}.png", picture()) for i, text in enumerate(texts)]
    ex.write_captions(tmp_path / "c.tsv", tmp_path / "images", pairs)
    read = read_captions(tmp_path / "c.tsv", tmp_path / "images").examples
    assert [pair.caption for pair in read] == texts
    official = pd.read_csv(tmp_path / "c.tsv", sep="\t", keep_default_na=False)
    assert official["caption"].tolist() == texts and list(official) == ["caption", "image"]


def test_captions_skips_are_counted(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path.parent / "outside.png").write_bytes(b"x")
    rows = ["caption\timage", "good\ta.png", "good too\ta.png", "better\ta.png", "best\ta.png",
            "only one column", "gone\tb.png", " \ta.png", "away\t../outside.png"]  # fmt: skip
    (tmp_path / "c.tsv").write_text("\n".join(rows))
    reading = read_captions(tmp_path / "c.tsv", tmp_path)
    assert [pair.caption for pair in reading.examples] == ["good", "good too", "better", "best"]
    assert reading.eligible == 8 and reading.skipped == Counter(
        {"not two columns": 1, "missing image": 1, "empty caption": 1,
         "image outside the folder": 1}
    )  # fmt: skip
    with pytest.raises(GillError, match="line 6 of .*c.tsv does not have two columns"):
        read_captions(tmp_path / "c.tsv", tmp_path, strict=True)


def test_captions_broken_files_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "c.tsv").write_text("good\ta.png\n")
    with pytest.raises(GillError, match="must start with the line 'caption<TAB>image'"):
        read_captions(tmp_path / "c.tsv", tmp_path)
    (tmp_path / "c.tsv").write_text('caption\timage\n"stray\ta.png\nx\ta.png\ny"\ta.png\n')
    with pytest.raises(GillError, match="line 2 of .*stray quote"):
        read_captions(tmp_path / "c.tsv", tmp_path)
    (tmp_path / "c.tsv").write_bytes(b"caption\timage\n\xff\xfe\ta.png\n")
    with pytest.raises(GillError, match="line 2 of .* is not UTF-8 text .*; save it as UTF-8"):
        read_captions(tmp_path / "c.tsv", tmp_path)
    with pytest.raises(GillError, match="gone.tsv is missing"):
        read_captions(tmp_path / "gone.tsv", tmp_path)


def many_rows(path, count: int) -> None:
    path.write_text("caption\timage\n" + "".join(f"word {i}\t{i}.jpg\n" for i in range(count)))


def test_a_folder_without_the_images_fails_in_seconds_with_the_count(tmp_path):
    (tmp_path / "images").mkdir()
    many_rows(tmp_path / "c.tsv", 300_000)
    for read in (read_captions, pairs_dataset):
        started = time.perf_counter()
        with pytest.raises(
            GillError, match=rf"c.tsv: all of its first {PROBE} .*missing image {PROBE}; .* 0.jpg"
        ):
            read(tmp_path / "c.tsv", tmp_path / "images")
        assert time.perf_counter() - started < 5
    many_rows(tmp_path / "few.tsv", 7)
    with pytest.raises(GillError, match=r"few.tsv: 7 of 7 .*missing image 7; at most 50% may be"):
        pairs_dataset(tmp_path / "few.tsv", tmp_path / "images")


# ---- pairs for training: a TSV and its folder, or webdataset shards ------------------------


def colours(count: int) -> list[tuple[int, int, int]]:
    return [(10 * i, 255 - 10 * i, 7) for i in range(count)]


def jpeg(color, size=(16, 12)) -> bytes:
    content = io.BytesIO()
    picture(color, size).save(content, "JPEG", quality=95)
    return content.getvalue()


def shows(image, color) -> bool:
    return all(abs(a - b) < 6 for a, b in zip(image.getpixel((4, 4)), color, strict=True))


def write_pairs(tmp_path, texts):
    pairs = [(text, f"{i}.png", picture(c)) for i, (text, c) in
             enumerate(zip(texts, colours(len(texts)), strict=True))]  # fmt: skip
    ex.write_captions(tmp_path / "c.tsv", tmp_path / "images", pairs)
    return tmp_path / "c.tsv", tmp_path / "images"


def test_tsv_pairs_are_those_of_the_reader_at_random_access(tmp_path):
    texts = ["plain", 'a "quoted" word', '"all quoted"', "a\ttab", "ünïcode é", "last"]
    tsv, images = write_pairs(tmp_path, texts)
    with tsv.open("a") as file:
        file.write("\n" + "gone\tmissing.png")
    pairs = pairs_dataset(tsv, images)
    assert len(pairs) == 6 and pairs.skipped == Counter({"missing image": 1})
    assert pairs.summary().endswith("6 of 7 usable; skipped 1 (missing image 1)")
    for i in (5, 0, 3, 2, 1, 4):
        image, caption = pairs[i]
        assert caption == texts[i] and shows(image, colours(6)[i])
    again = pickle.loads(pickle.dumps(pairs))  # as a data loader's workers get it
    assert [caption for _, caption in again] == texts
    assert again.about() == pairs.about() and pairs.about()["pairs"] == 6
    with pytest.raises(IndexError):
        pairs[6]


def test_a_damaged_picture_gives_way_to_the_next_and_is_counted(tmp_path):
    tsv, images = write_pairs(tmp_path, ["a", "b", "c"])
    (images / "1.png").write_bytes(b"<html>gone</html>")
    pairs = pairs_dataset(tsv, images)
    with pytest.warns(UserWarning, match=r"pair 1 gives way .*1.png is a web page"):
        assert pairs[1][1] == "c"
    assert pairs.damaged == Counter({"unreadable image": 1})
    (images / "2.png").unlink()  # the last one's next is the first
    with pytest.warns(UserWarning, match="2.png is missing"):
        assert pairs[2][1] == "a"


def test_a_folder_of_damaged_pictures_stops_training_with_the_count(tmp_path):
    tsv, images = write_pairs(tmp_path, [str(i) for i in range(20)])
    for path in images.iterdir():
        path.write_bytes(b"<html>gone</html>")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(GillError, match=r"c.tsv: 11 of 11 pictures opened so far are damaged"):
            pairs_dataset(tsv, images)[0]
        with pytest.raises(GillError, match=r"c.tsv: the pictures of all 20 pairs are damaged"):
            pairs_dataset(tsv, images, max_skipped=1.0)[7]


def write_shard(path, samples) -> None:
    """samples: (key, {suffix: bytes}), written as img2dataset's writer does."""
    with tarfile.open(path, "w") as tar:
        for key, members in samples:
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def sample(number: int, caption: str, color=(200, 30, 30)) -> tuple[str, dict]:
    about = json.dumps({"caption": caption, "status": "success"}).encode()
    return f"{number:09d}", {"jpg": jpeg(color), "txt": caption.encode(), "json": about}


@pytest.fixture
def cc3m(tmp_path):
    """Three shards of four pairs, pair i of colour i."""
    folder = tmp_path / "cc3m"
    folder.mkdir()
    for shard in range(3):
        numbers = range(4 * shard, 4 * shard + 4)
        told = [sample(i, f"caption {i}", colours(12)[i]) for i in numbers]
        write_shard(folder / f"{shard:05d}.tar", told)
    return folder


@pytest.mark.parametrize("how", ["folder", "braces", "star", "list"])
def test_shards_give_the_pair_asked_for(cc3m, how):
    names = {
        "folder": cc3m,
        "braces": str(cc3m / "{00000..00002}.tar"),
        "star": f"{cc3m}/*.tar",
        "list": [cc3m / "00000.tar", cc3m / "{00001..00002}.tar"],
    }
    pairs = read_shards(names[how], strict=True)
    assert len(pairs) == pairs.eligible == 12 and not pairs.skipped
    for i in (11, 0, 7, 4):
        image, caption = pairs[i]
        assert caption == f"caption {i}" and shows(image, colours(12)[i])


def test_brace_patterns_keep_their_zeros_and_multiply(tmp_path):
    for name in ("a08", "a09", "a10", "b08", "b09", "b10"):
        (tmp_path / name).touch()
    found = find_shards([tmp_path / "a{08..10}", tmp_path / "b{08..10}"])
    assert [path.name for path in found] == ["a08", "a09", "a10", "b08", "b09", "b10"]
    with pytest.raises(GillError, match=r"2 of 4 shards of .* are missing, .*first is .*a11"):
        find_shards(str(tmp_path / "a{09..12}"))
    with pytest.raises(GillError, match=r"1 of 1 shards of .*\*.tar are missing"):
        find_shards(tmp_path)


def test_shards_of_the_webdataset_writer_are_read_as_it_reads_them(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="the webdataset extra is not installed")
    path = tmp_path / "00000.tar"
    long = "x" * 90  # names over 100 bytes take another header
    with webdataset.TarWriter(str(path)) as writer:
        for number in (0, 1, 2):
            key, members = sample(number, f"caption {number}", colours(3)[number])
            writer.write({"__key__": f"{long}{key}", **members})
    theirs = webdataset.WebDataset(str(path), shardshuffle=False).decode("pil")
    theirs = list(theirs.to_tuple("jpg", "txt"))
    ours = list(read_shards(path, strict=True))
    assert [caption for _, caption in ours] == [caption for _, caption in theirs]
    for (image, _), (their_image, _) in zip(ours, theirs, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(their_image.convert("RGB")))


def test_unusable_samples_are_counted_by_reason(tmp_path):
    good = [sample(i, f"caption {i}") for i in range(6)]
    bad = [
        ("000000010", {"jpg": jpeg((1, 2, 3)), "json": b"{}"}),
        ("000000011", {"txt": b"no picture", "json": b"{}"}),
        ("000000012", {"jpg": jpeg((1, 2, 3)), "txt": b" \n"}),
        ("000000013", {"jpg": b"<html>404</html>", "txt": b"a page"}),
        ("000000014", {"jpg": b"", "txt": b"nothing"}),
    ]
    write_shard(tmp_path / "00000.tar", bad[:2] + good + bad[2:])
    reasons = {"missing member": 2, "empty caption": 1, "unreadable image": 2}
    for _ in ("made", "kept"):
        pairs = read_shards(tmp_path)
        assert len(pairs) == 6 and pairs.eligible == 11 and pairs.skipped == Counter(reasons)
        assert [caption for _, caption in pairs] == [f"caption {i}" for i in range(6)]
    with pytest.raises(GillError, match=r"sample 000000010 of .*00000.tar lacks its caption"):
        read_shards(tmp_path, strict=True)
    with pytest.raises(GillError, match=r"5 of 11 .*missing member 2.* at most 40% may be"):
        read_shards(tmp_path, max_skipped=0.4)


def test_a_truncated_shard_gives_what_is_whole_and_counts_what_is_lost(tmp_path):
    path = tmp_path / "00000.tar"
    write_shard(path, [sample(i, f"caption {i}") for i in range(8)])
    whole = path.read_bytes()
    each = 6 * 512 + (len(jpeg((200, 30, 30))) // 512) * 512
    for size, usable in (
        (each * 5 + 700, 5),
        (each * 5, 5),
        (each * 6 - 1600, 5),
        (each * 6 - 1300, 6),
    ):
        path.write_bytes(whole[:size])
        pairs = read_shards(path)
        assert [caption for _, caption in pairs] == [f"caption {i}" for i in range(usable)]
        assert pairs.skipped == Counter({"truncated shard": 1})
    (tmp_path / "00000_stats.json").write_text(json.dumps({"count": 9, "successes": 8}))
    path.write_bytes(whole[: each * 6])  # another size: the kept index is not this file's
    pairs = read_shards(path)
    assert (len(pairs), pairs.eligible) == (6, 8) and pairs.skipped["truncated shard"] == 2
    path.write_bytes(whole[: each * 3])
    with pytest.raises(GillError, match=r"5 of 8 .*truncated shard 5.* is cut off behind"):
        read_shards(path)


def test_damage_inside_a_shard_is_no_silent_end(cc3m):
    content = bytearray((cc3m / "00001.tar").read_bytes())
    middle = content.index(b"000000006.jpg")
    content[middle : middle + 400] = b"?" * 400
    (cc3m / "00001.tar").write_bytes(content)
    pairs = read_shards(cc3m)
    assert pairs.skipped["truncated shard"] == 1
    assert [caption for _, caption in pairs][4:7] == ["caption 4", "caption 5", "caption 8"]


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>404</html>" * 40])
def test_a_shard_that_is_no_tar_file_is_named(cc3m, content):
    (cc3m / "00001.tar").write_bytes(content)
    with pytest.raises(GillError, match="00001.tar is not a tar file"):
        read_shards(cc3m)


def test_a_picture_cut_off_inside_its_shard_gives_way(tmp_path):
    _, members = sample(0, "cut")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "JPEG")
    members["jpg"] = content.getvalue()[:900]
    write_shard(tmp_path / "0.tar", [("0", members), sample(1, "whole")])
    pairs = read_shards(tmp_path / "0.tar")
    assert len(pairs) == 2
    with pytest.warns(UserWarning, match=r"pair 0 gives way .*0.tar is damaged or cut off"):
        assert pairs[0][1] == "whole"


def test_an_index_that_cannot_be_kept_is_told(cc3m, monkeypatch):
    from gill_lite.datasets import shards

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shards, "write_json", refuse)
    with pytest.warns(UserWarning, match="00002.tar.index.json cannot be kept"):
        assert len(read_shards(cc3m / "00002.tar")) == 4
    assert not list(cc3m.glob("*.json"))


def test_every_format_pil_writes_starts_like_a_picture():
    for suffix in SUFFIXES:
        content = io.BytesIO()
        picture().save(content, Image.registered_extensions()[suffix])
        assert starts_like_a_picture(content.getvalue()[:16]), suffix
    assert not starts_like_a_picture(b"<!doctype html>")


# ---- the mini world in these formats -----------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    target = tmp_path_factory.mktemp("world") / "sets"
    return ex.export(target, num_stories=4, num_dialogues=3, num_captions=5)


def test_export_is_read_back_whole(exported):
    stories = read_vist(exported.vist_json, exported.vist_images, strict=True)
    dialogues = read_visdial(exported.visdial_json, exported.visdial_images, strict=True)
    pairs = read_captions(exported.captions_tsv, exported.captions_images, strict=True)
    assert (len(stories.examples), len(dialogues.examples), len(pairs.examples)) == (4, 3, 5)
    scenes = ex.read_attributes(exported.vist_attributes)
    assert set(scenes) == {i for story in stories.examples for i in story.photo_ids}
    assert not any(is_novel(scene) for scene in scenes.values())
    of_pairs = ex.read_attributes(exported.captions_attributes)
    assert set(of_pairs) == {pair.image for pair in pairs.examples}
    assert set(ex.read_attributes(exported.visdial_attributes)) == {
        d.dialogue_id for d in dialogues.examples
    }


def test_export_pictures_show_the_attributes(exported):
    """The same scene drawn again is nearer than any other scene of the export, mostly."""
    from gill_lite.world.render import render
    from gill_lite.world.scene import rng_for

    scenes = ex.read_attributes(exported.captions_attributes)
    shown = {n: np.asarray(open_image(exported.captions_images / n), float) for n in scenes}
    hits = 0
    for name, scene in scenes.items():
        again = np.asarray(render(scene, rng_for("again", name)), float)
        nearest = min(shown, key=lambda other: np.abs(shown[other] - again).mean())
        hits += nearest == name
    assert hits >= 4


def test_export_bytes_depend_on_the_arguments_alone(exported, tmp_path):
    ex.export(tmp_path / "again", num_stories=4, num_dialogues=3, num_captions=5)
    root = exported.vist_json.parents[1]
    assert tree_bytes(tmp_path / "again") == tree_bytes(root)
    larger = ex.export(tmp_path / "larger", num_stories=6, num_dialogues=0, num_captions=0)
    more = tree_bytes(larger.vist_images)
    assert tree_bytes(exported.vist_images).items() <= more.items() and len(more) == 30
    other = ex.export(tmp_path / "seed", 4, 0, 0, seed=1)
    assert tree_bytes(other.vist_images) != tree_bytes(exported.vist_images)


def test_export_novel_split_holds_novel_scenes_only(tmp_path):
    paths = ex.export(tmp_path / "novel", 0, 4, 4, split="novel")
    for path in (paths.visdial_attributes, paths.captions_attributes):
        assert all(is_novel(scene) for scene in ex.read_attributes(path).values())


def test_export_leaves_nothing_half_written(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ex, "_export_captions", fail)
    with pytest.raises(KeyboardInterrupt):
        ex.export(tmp_path / "sets", 1, 1, 1)
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_bad_arguments(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(GillError, match="full is there already"):
        ex.export(tmp_path / "full", 1, 1, 1)
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    with pytest.raises(GillError, match="num_stories"):
        ex.export(tmp_path / "x", num_stories=-1)
    with pytest.raises(GillError, match="split must be"):
        ex.export(tmp_path / "x", split="test")
    assert not (tmp_path / "x").exists()


# ---- real data in these formats ----------------------------------------------------------


def photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def test_real_photographs_walk_through_the_vist_reader(tmp_path):
    china, flower = photographs()
    shots = [china, flower, china.rotate(90, expand=True), flower.convert("L"), china]
    texts = ["We went to an old temple.", "Flowers grew there!", "I turned my camera…",
             "It was grey — then", "we saw the \"temple\" again."]  # fmt: skip
    told = list(zip(map(str, range(100, 105)), texts, shots, strict=True))
    json_path, images = write_vist(tmp_path, [("1", told)])
    china.save(images / "104.jpg", quality=90)
    (images / "104.png").unlink()
    (story,) = read_vist(json_path, images, strict=True).examples
    assert story.captions == tuple(texts)
    prompt = vist_prompt(story, VIST_CONTEXTS["captions5_images4"], image_size=224)
    assert [type(part) is str for part in prompt] == [True, False] * 4 + [True]
    assert all(part.size == (224, 224) and part.mode == "RGB" for part in prompt[1::2])
    true = np.asarray(china, float)
    assert np.abs(np.asarray(open_image(story.image_paths[4]), float) - true).mean() < 6  # JPEG
    assert np.array_equal(np.asarray(open_image(story.image_paths[1])), np.asarray(flower))


def test_real_prompts_walk_through_the_readers(tmp_path):
    prompts = read_partiprompts(ALIGNMENT).examples
    texts = [prompt.text for prompt in prompts]
    small = [photo.resize((32, 24)) for photo in photographs()]
    pairs = [(text, f"{i:04d}.png", small[i % 2]) for i, text in enumerate(texts)]
    ex.write_captions(tmp_path / "cc3m_val.tsv", tmp_path / "images", pairs)
    reading = read_captions(tmp_path / "cc3m_val.tsv", tmp_path / "images", strict=True)
    assert [pair.caption for pair in reading.examples] == texts
    stories = [(str(s), [(str(5 * s + i), texts[5 * s + i], small[i % 2]) for i in range(5)])
               for s in range(20)]  # fmt: skip
    json_path, images = write_vist(tmp_path, stories)
    read = read_vist(json_path, images, strict=True)
    assert [text for story in read.examples for text in story.captions] == texts[:100]


# ---- PartiPrompts ------------------------------------------------------------------------


def test_partiprompts_labels_match_the_official_counts():
    reading = read_partiprompts(ALIGNMENT)
    assert reading.eligible == len(reading.examples) == 1632
    assert Counter(p.label for p in reading.examples) == {"gen": 592, "ret": 319, "same": 721}
    votes = Counter(vote for prompt in reading.examples for vote in prompt.votes)
    assert votes == {"gen": 3854, "ret": 2836, "same": 1468}
    assert Counter(len(prompt.votes) for prompt in reading.examples) == {5: 1630, 4: 2}
    assert sum('"' in prompt.text for prompt in reading.examples) > 0  # quotes are kept


def test_realism_annotations_are_read_alike():
    alignment, realism = (read_partiprompts(path).examples for path in (ALIGNMENT, REALISM))
    assert [prompt.text for prompt in realism] == [prompt.text for prompt in alignment]
    assert Counter(p.label for p in realism) == {"gen": 402, "ret": 370, "same": 860}
    assert Counter(len(prompt.votes) for prompt in realism) == {5: 1630, 4: 2}


@pytest.mark.parametrize("path", [ALIGNMENT, REALISM], ids=["alignment", "realism"])
def test_every_label_is_the_official_processings(path):
    """Its form: split the file's lines by hand; a prompt without agreement becomes `same`."""
    lines = path.read_text(encoding="utf-8").split("\n")[1:1633]
    prompts = read_partiprompts(path).examples
    assert len(lines) == len(prompts) == 1632
    for line, prompt in zip(lines, prompts, strict=True):
        counts = Counter(line.split("\t")[-1].strip().split(","))
        gen, ret = counts["gen"], counts["ret"]
        agreed = max(gen, ret) >= 4 or (gen, ret) in {(3, 0), (3, 1), (0, 3), (1, 3)}
        assert prompt.label == (counts.most_common(1)[0][0] if agreed else "same"), line
        assert prompt.text == line.split("\t")[0]


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ("gen gen gen gen ret", "gen"),
        ("gen gen gen ret same", "gen"),
        ("gen gen gen ret ret", "same"),
        ("ret ret ret same same", "ret"),
        ("ret ret ret gen gen", "same"),
        ("gen gen same same same", "same"),
        ("ret ret ret gen", "ret"),
    ],
)
def test_confident_label(votes, label):
    assert confident_label(votes.split()) == label


def test_partiprompts_broken_files_are_named(tmp_path):
    header = "Prompt\tCategory\tChallenge\tNote\tDecisions\n"
    path = tmp_path / "p.tsv"
    for content, says in [
        ("", "must have the columns"),
        (header, "holds no prompts"),
        (header + "a\tb\tc\td\n", "line 2 of .* does not have 5 columns"),
        (header + "a\tb\tc\td\tgen,maybe\n", "unknown vote 'maybe'"),
    ]:
        path.write_text(content)
        with pytest.raises(GillError, match=says):
            read_partiprompts(path)
    with pytest.raises(GillError, match="gone.tsv is missing"):
        read_partiprompts(tmp_path / "gone.tsv")
