"""Drawing and scoring: the cache of drawn pictures, and what each choice of a protocol changes."""

from threading import Event

import numpy as np
import pytest
import torch

from gill_lite.answering.drawing import example_seed, to_pil
from gill_lite.datasets.images import open_image
from gill_lite.evaluation.cache import SampleCache, key_of
from gill_lite.evaluation.metrics import Judge, resized
from gill_lite.evaluation.protocol import CORRECTED, OFFICIAL, Protocol
from gill_lite.evaluation.run import run_resumable, work_items
from gill_lite.evaluation.tasks import VISDIAL, VIST
from tests.helpers import tiny_evaluation as tiny

CELLS = [("sd", "captions5", 0), ("gill", "captions5", 0), ("gill", "captions5_images4", 0)]


def items(scorer, cell=CELLS[0]):
    return work_items([example.example_id for example in scorer.dataset.examples], [cell])


def only(**choice) -> Protocol:
    """Our protocol with one choice taken from the official one."""
    fields = {"one_generator": False, "output_key": "example", "visdial_lpips": True, **choice}
    return Protocol("one official choice", **fields)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tmp_path_factory.mktemp("world") / "vist"


# ---- scores ------------------------------------------------------------------------------


def test_scores_are_those_computed_by_hand(world):
    scorer = tiny.scorer(VIST, world)
    batch = items(scorer, CELLS[2])
    drawn = scorer.draw(batch)  # (4, 3, 16, 16)
    rows = scorer.score(batch, drawn)
    clip = scorer.judge.vision
    for story, picture, row in zip(scorer.dataset.examples, drawn, rows, strict=True):
        real = scorer.truth(story)
        assert to_pil(real).tobytes() == open_image(story.image_paths[-1]).tobytes()
        squares = (2 * (picture - resized(real[None], 16)[0])) ** 2
        assert row["lpips"] == pytest.approx(squares.mean().item(), abs=2e-6)
        pixels = scorer.judge.processor(images=[to_pil(real)], return_tensors="pt").pixel_values
        a = clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output)[0]
        b = scorer.judge.features([picture])[0]
        assert row["clip_similarity"] == pytest.approx(
            (a @ b / a.norm() / b.norm()).item(), abs=2e-6
        )


def test_clip_sees_the_middle_of_a_photograph_as_officially(world):
    judge = Judge(tiny.backbones(), ("clip_similarity",))
    wide = torch.rand(3, 16, 48)
    edges = wide.clone()
    edges[:, :, :12], edges[:, :, -12:] = 0, 1  # cut off on both sides
    assert torch.equal(judge.features([wide]), judge.features([edges]))
    edges[:, :, 20:28] = 0
    assert not torch.equal(judge.features([wide]), judge.features([edges]))


def test_clip_reads_pictures_of_its_size_as_its_processor_would(world):
    judge = Judge(tiny.backbones(), ("clip_similarity",))
    picture = torch.randint(0, 256, (3, 16, 16)) / 255
    pixels = judge.processor(images=[to_pil(picture)], return_tensors="pt").pixel_values
    pooled = judge.vision.vision_model(pixel_values=pixels).pooler_output
    torch.testing.assert_close(judge.features([picture]), judge.vision.visual_projection(pooled))


def test_large_pictures_are_compared_at_256_pixels_and_small_ones_as_they_are(world):
    judge, seen = Judge(tiny.backbones(), ("lpips",)), []
    judge.perceptual = tiny.Squares()
    judge.perceptual.register_forward_pre_hook(lambda _, pair: seen.append(pair[0].shape[-1]))
    for size in (16, 300):
        judge.lpips(torch.rand(1, 3, size, size), [torch.rand(3, 40, 30)])
    assert seen == [16, 256]


# ---- the cache ---------------------------------------------------------------------------


def no_sampling(scorer, monkeypatch):
    for drawer in scorer.models.values():
        monkeypatch.setattr(drawer, "sample", lambda *_: pytest.fail("drawn again"))


def test_a_cached_picture_has_the_scores_of_a_fresh_one(world, tmp_path, monkeypatch):
    fresh = tiny.scorer(VIST, world)
    scorer = tiny.scorer(VIST, world, cache=SampleCache(tmp_path))
    wanted = [fresh(items(fresh, cell)) for cell in CELLS]
    assert [scorer(items(scorer, cell)) for cell in CELLS] == wanted
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3 * 4
    again = tiny.scorer(VIST, world, cache=SampleCache(tmp_path))  # as another process would
    no_sampling(again, monkeypatch)
    assert [again(items(again, cell)) for cell in CELLS] == wanted


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "of another picture", "gone"])
def test_a_damaged_file_is_drawn_anew(world, tmp_path, damage):
    scorer = tiny.scorer(VIST, world, cache=SampleCache(tmp_path))
    wanted = scorer(items(scorer))
    victim, other = sorted(tmp_path.rglob("*.safetensors"))[:2]
    whole = victim.read_bytes()
    flipped = bytes([whole[-1] ^ 1])
    content = {"cut": whole[:-7], "empty": b"", "changed": whole[:-1] + flipped,
               "of another picture": other.read_bytes()}  # fmt: skip
    victim.unlink() if damage == "gone" else victim.write_bytes(content[damage])
    assert scorer(items(scorer)) == wanted
    assert victim.read_bytes() == whole, "written again, whole"


def test_a_batch_is_drawn_whole_so_that_a_resumed_run_has_the_same_bits(world, tmp_path):
    scorer = tiny.scorer(VIST, world, cache=SampleCache(tmp_path))
    scorer(items(scorer))
    next(tmp_path.rglob("*.safetensors")).unlink()
    drawer, drawn = scorer.models["sd", 0], []
    sample = drawer.sample
    drawer.sample = lambda c, g: drawn.append(len(c)) or sample(c, g)
    scorer(items(scorer))
    assert drawn == [4]


def keys(drawers, text="a red ball .", seed=5) -> str:
    drawer = drawers["sd", 0]
    embeds = drawer.responder.drawing.text_embeds([text])
    return drawer.keys(embeds, [torch.Generator().manual_seed(seed)])[0]


def batches_of(scorer, cells, size=2) -> list:
    names = scorer.dataset.ids
    parts = [names[i : i + size] for i in range(0, len(names), size)]
    return [work_items(part, [cell]) for cell in cells for part in parts]


def test_a_stream_of_batches_has_the_scores_of_each(world):
    cells = [("sd", "captions5", 0), ("gill", "captions5_images4", 0)]
    scorer = tiny.scorer(VIST, world)
    batches = batches_of(scorer, cells)
    expected = [tiny.scorer(VIST, world)(batch) for batch in batches]
    assert list(scorer.stream([batches[0], [], *batches[1:], []])) == [
        expected[0], [], *expected[1:], []
    ]  # fmt: skip


def test_files_are_read_and_pictures_scored_while_the_next_are_drawn(world, monkeypatch):
    scorer = tiny.scorer(VIST, world)
    first, second = batches_of(scorer, [("gill", "captions5_images4", 0)])
    read, drawing = Event(), Event()
    draw, truth, score = scorer.draw, scorer.truth, scorer.score

    def opened(example):
        if example.example_id == second[-1].example_id:
            read.set()
        return truth(example)

    def drawn(items, prompts):
        if items == first:
            assert read.wait(60), "the second batch is read before the first is drawn"
        else:
            drawing.set()
        return draw(items, prompts)

    def scored(items, *given):
        assert drawing.wait(60), "the first batch is scored beside the second's drawing"
        return score(items, *given)

    for name, own in {"truth": opened, "draw": drawn, "score": scored}.items():
        monkeypatch.setattr(scorer, name, own)
    rows = list(scorer.stream([first, second]))
    monkeypatch.undo()
    assert rows == [tiny.scorer(VIST, world)(batch) for batch in (first, second)]


@pytest.mark.parametrize("part", ["draw", "score", "truth"])
def test_a_run_that_breaks_keeps_what_was_scored_and_ends_the_same(
    world, tmp_path, part, monkeypatch
):
    scorer = tiny.scorer(VIST, world)
    items = work_items(scorer.dataset.ids, [("gill", "captions5_images4", 0)])
    whole = run_resumable(items, scorer, tmp_path / "whole", {}, 1, progress=False)
    does, calls = getattr(scorer, part), []

    def breaks(*given):
        calls.append(given)
        if len(calls) == 3:
            raise OSError("gone")
        return does(*given)

    monkeypatch.setattr(scorer, part, breaks)
    with pytest.raises(OSError, match="gone"):
        run_resumable(items, scorer, tmp_path / "run", {}, 1, progress=False)
    assert len((tmp_path / "run" / "rows.jsonl").read_text().splitlines()) == 2
    monkeypatch.undo()
    assert run_resumable(items, scorer, tmp_path / "run", {}, 1, progress=False) == whole
    rows = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("run", "whole")]
    assert rows[0] == rows[1]


def test_the_key_changes_with_all_that_makes_a_picture():
    found = {
        "plain": keys(tiny.models()),
        "text": keys(tiny.models(), "a blue box ."),
        "noise": keys(tiny.models(), seed=6),
        "guidance": keys(tiny.models(guidance_scale=9.0)),
    }
    more_steps = tiny.models()
    pipeline = more_steps["sd", 0].responder.backbones.pipeline
    pipeline.unet.conv_out.bias.data[0] += 1e-3
    found["weights"] = keys(more_steps)
    other = tiny.models()
    scheduler = other["sd", 0].responder.backbones.pipeline.scheduler
    scheduler.register_to_config(beta_end=0.5)
    found["scheduler"] = keys(other)
    assert len(set(found.values())) == len(found)
    assert keys(tiny.models()) == found["plain"], "and with nothing else"


def test_keys_tell_dtypes_and_shapes_apart():
    one = torch.zeros(4)
    assert key_of(x=one) != key_of(x=one.view(2, 2)) != key_of(x=torch.zeros(8).half())
    assert key_of(x=torch.ones(2, dtype=torch.bfloat16)) != key_of(x=torch.ones(2).half())


# ---- the protocols, choice by choice -----------------------------------------------------


def test_one_generator_makes_the_noise_depend_on_what_came_before(world):
    def turned(stories):
        return stories[::-1]

    for protocol, same in ((CORRECTED, True), (only(one_generator=True), False)):
        straight = tiny.scorer(VIST, world, protocol=protocol)
        back = tiny.scorer(VIST, world, examples=turned, protocol=protocol)
        one, other = straight.draw(items(straight)), back.draw(items(back)).flip(0)
        assert torch.allclose(one, other, atol=1e-4) == same


def test_the_official_noise_is_one_stream(world):
    scorer = tiny.scorer(VIST, world, protocol=OFFICIAL, run_seed=42)
    drawer = scorer.models["sd", 0]
    generator = torch.Generator().manual_seed(42)
    for story in scorer.dataset.examples:  # as the official script consumes it
        noise = drawer.noise(generator)
        assert torch.equal(noise, drawer.noise(scorer.generator(drawer, story.example_id)))
    last = items(scorer)[-1:]  # alone, as a shard may have it
    assert torch.allclose(scorer.draw(last)[0], scorer.draw(items(scorer))[-1], atol=1e-5)


def test_pictures_of_a_shared_target_overwrite_each_other(world):
    share = tiny.sharing_their_picture
    ours = tiny.scorer(VIST, world, examples=share)
    theirs = tiny.scorer(VIST, world, examples=share, protocol=only(output_key="target"))
    own, overwritten = ours.draw(items(ours)), theirs.draw(items(theirs))
    assert not torch.allclose(own[0], own[-1], atol=1e-3)
    assert torch.allclose(overwritten[0], own[-1], atol=1e-5), "the last one's picture"
    assert torch.allclose(overwritten[1:], own[1:], atol=1e-5)
    mine, official = ours(items(ours)), theirs(items(theirs))
    assert official[0]["clip_similarity"] == pytest.approx(mine[-1]["clip_similarity"], abs=1e-5)
    assert ["lpips" in row for row in official] == [False, True, True, True], "one file, once"
    assert all("lpips" in row for row in mine)


def test_officially_lpips_finds_no_pair_on_visdial(tmp_path):
    for protocol, there in ((CORRECTED, True), (only(visdial_lpips=False), False)):
        scorer = tiny.scorer(VISDIAL, tmp_path / "visdial", 2, protocol=protocol)
        rows = scorer(items(scorer, ("gill", "rounds10", 0)))
        assert [("lpips" in row) for row in rows] == [there, there]
        assert all("clip_similarity" in row for row in rows)


def test_lpips_stays_on_vist_under_the_official_protocol(world):
    scorer = tiny.scorer(VIST, world, protocol=OFFICIAL)
    assert all("lpips" in row for row in scorer(items(scorer)))


def test_noise_of_an_example_is_its_own(world):
    scorer = tiny.scorer(VIST, world, run_seed=3)
    story = scorer.dataset.examples[1].example_id
    generator = scorer.generator(scorer.models["sd", 0], story)
    assert generator.initial_seed() == example_seed(3, story)
    together = scorer.draw(items(scorer))
    alone = scorer.draw(items(scorer)[1:2])
    np.testing.assert_allclose(alone[0], together[1], atol=1e-5)
