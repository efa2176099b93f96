"""Systems that see, on the mini world's backbones: they train, are kept, come back, and answer."""

from copy import deepcopy
from dataclasses import replace
from itertools import count

import pytest
import torch
from safetensors.torch import save_file

from gill_lite.errors import GillError
from gill_lite.family import SEE, SYSTEMS, blip, drawing, seeing, system
from gill_lite.family.instructions import KINDS, description
from gill_lite.family.seer import Said
from gill_lite.family.system import CONFIG, MANIFEST, WEIGHTS, build, load, train
from gill_lite.files import read_json, sha256, write_json
from gill_lite.model.backbones import check_files, load_backbones
from gill_lite.model.tokens import IGNORE
from gill_lite.pretraining import loop
from gill_lite.profiles import MINI
from gill_lite.world import pictures
from gill_lite.world.scene import rng_for, sample_scene

TRAINED = [s.name for s in SYSTEMS.values() if s.trained_here and s.task == SEE]
ANSWERING = [name for name in TRAINED if not name.startswith("blip_") and name != "blip"]
COMPARING = ("clip", "blip", "blip_noisy", "gill", "fromage")


@pytest.fixture(scope="module")
def backbones():
    return load_backbones(MINI)


@pytest.fixture
def tiny(monkeypatch):
    """Sixteen pictures, four steps of four pairs, a checkpoint each."""
    monkeypatch.setattr(pictures, "NUM_IMAGES", 16)
    monkeypatch.setitem(system.BUDGETS, SEE, system.Budget(4, 4))
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)


def trained(name: str, folder):
    return train(name, 0, folder, folder / "work", device="cpu")


@pytest.fixture
def limber(tiny, tmp_path):
    return trained("limber", tmp_path)


def test_a_system_is_kept_with_how_it_was_made_and_comes_back(limber, backbones, tmp_path):
    about = read_json(tmp_path / MANIFEST)["systems"]["limber-0"]
    assert about["command"] == "gill-lite family limber --seed 0" and about["seconds"] >= 0
    assert about["steps"] == {"align": 4} and about["pairs"] == 16
    assert len(about["git_commit"]) >= 7 and about["curve"]
    width = backbones.lm.get_input_embeddings().embedding_dim
    assert about["learned"] == (128 + 1) * MINI.num_visual_tokens * width
    assert check_files(tmp_path)
    again, fresh = (make("limber", 0, tmp_path, backbones) for make in (load, build))
    kept, blank = again.own_state(), fresh.own_state()
    assert kept.keys() == blank.keys() == {"visual.weight", "visual.bias"}
    assert not torch.allclose(kept["visual.weight"], blank["visual.weight"])
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("name, at", [("limber", 2), ("blip2", 1), ("blip2", 3)])
def test_a_killed_training_ends_with_the_same_bytes(tiny, name, at, tmp_path, monkeypatch):
    """In a stage's midst, and in the second stage of two."""
    whole, real, steps = trained(name, tmp_path / "whole"), loop.one_cycle, count()

    def rate(*schedule):
        if next(steps) == at:
            raise KeyboardInterrupt
        return real(*schedule)

    monkeypatch.setattr(loop, "one_cycle", rate)
    with pytest.raises(KeyboardInterrupt):
        trained(name, tmp_path / "cut")
    folder = trained(name, tmp_path / "cut")
    assert next(steps) == 5, "the killed step is made again, none else"
    again, first = (each / "model.safetensors" for each in (folder, whole))
    assert again.read_bytes() == first.read_bytes()


def test_weights_that_are_missing_or_of_another_system_are_one_sentence(limber, tmp_path):
    with pytest.raises(GillError, match="gill-lite family limber --seed 1` makes it"):
        load("limber", 1, tmp_path)
    (limber / "model.safetensors").write_bytes(b"none")
    with pytest.raises(GillError, match="is not what its config.json tells of"):
        load("limber", 0, tmp_path)
    (limber / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(GillError, match="git lfs pull"):
        load("limber", 0, tmp_path)


def test_weights_of_another_kind_are_one_sentence(limber, tmp_path):
    save_file({"other": torch.zeros(2)}, limber / WEIGHTS)
    told = read_json(limber / CONFIG) | {"sha256": sha256(limber / WEIGHTS)}
    write_json(limber / CONFIG, told)
    with pytest.raises(GillError, match="does not hold a limber .it holds other tensors."):
        load("limber", 0, tmp_path)


def test_a_name_without_code_and_a_split_that_is_none_are_one_sentence():
    for name, why in {
        "vae": "built in notebook 20 alone",
        "clipp": "no system of the family",
    }.items():
        with pytest.raises(GillError, match=f"'{name}' is {why}; known are clip"):
            load(name)
    with pytest.raises(GillError, match="split 'storys' is none of seen"):
        drawing.examples("storys", 1)


def test_a_folder_of_other_weights_is_refused_before_anything_is_trained(tiny, tmp_path):
    (tmp_path / "manifest.json").write_text('{"made_by": "gill-lite pretrain", "files": {}}')
    with pytest.raises(GillError, match="holds weights of another kind"):
        trained("limber", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_weights_of_another_world_are_one_sentence(limber, backbones, tmp_path):
    other = replace(backbones, lm=deepcopy(backbones.lm))
    with torch.no_grad():
        other.lm.get_input_embeddings().weight[0, 0] += 1
    with pytest.raises(GillError, match="on other backbones than these; `gill-lite family limber"):
        load("limber", 0, tmp_path, other)


def test_a_training_on_other_backbones_begins_anew(limber, backbones, tmp_path, monkeypatch):
    other, before = replace(backbones, lm=deepcopy(backbones.lm)), (limber / WEIGHTS).read_bytes()
    with torch.no_grad():
        other.lm.get_input_embeddings().weight[:5] += 1
    monkeypatch.setattr(system, "load_backbones", lambda profile: other)
    assert (trained("limber", tmp_path) / WEIGHTS).read_bytes() != before
    assert load("limber", 0, tmp_path, other).own_state()


def test_a_child_without_its_parent_is_one_sentence_and_nothing_is_written(tiny, tmp_path):
    with pytest.raises(GillError, match="blip2-0/.* is missing; `gill-lite family blip2 --seed 0`"):
        trained("minigpt4", tmp_path)
    assert not (tmp_path / MANIFEST).exists() and not (tmp_path / "minigpt4-0").exists()


def test_a_child_on_another_parent_than_it_began_with_is_one_sentence(tiny, tmp_path):
    parent, child = (trained(name, tmp_path) for name in ("blip2", "minigpt4"))
    about = read_json(child / CONFIG)
    assert about["needs"] == {"blip2-0": sha256(parent / WEIGHTS)}
    assert load("minigpt4", 0, tmp_path).own_state()
    other = load("blip2", 0, tmp_path)
    for value in other.own_state().values():
        value += 1
    system.keep(other, "blip2", tmp_path, {"seed": 0, "backbones": about["backbones"]})
    with pytest.raises(GillError, match="on another blip2-0; `gill-lite family minigpt4 --seed 0`"):
        load("minigpt4", 0, tmp_path)


def test_what_is_kept_in_eight_bits_is_off_by_half_a_step_at_most():
    drawn = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    tensors = {"convolution": drawn, "gate": torch.tensor([0.1, -2.0]), "zero": torch.zeros(2, 3)}
    kept = system.packed(tensors)
    assert kept["convolution"].dtype == torch.int8 and kept["gate"].dtype == torch.float16
    back = system.unpacked(kept)
    assert back.keys() == tensors.keys() and torch.equal(back["zero"], tensors["zero"])
    step = drawn.flatten(1).abs().amax(1) / 127
    off = (back["convolution"] - drawn).flatten(1).abs().amax(1)
    assert (off <= 0.51 * step).all() and (off > 0).all()
    assert torch.allclose(back["gate"], tensors["gate"], atol=1e-3)


@pytest.mark.parametrize("name, said", [("frog", "'frog' is no system of the family; known"),
                                        ("clip", "learns nothing here"),
                                        ("gill", "made by `gill-lite train`")])  # fmt: skip
def test_what_cannot_be_trained_is_one_sentence(name, said, tmp_path):
    with pytest.raises(GillError, match=said):
        train(name, 0, tmp_path, tmp_path)


@pytest.fixture(scope="module")
def everyone(tmp_path_factory, backbones):
    """All systems, trained for ten steps, in one folder; and the pool they are asked about."""
    folder = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "NUM_IMAGES", 16)
        patch.setitem(system.BUDGETS, SEE, system.Budget(10, 4))
        patch.setattr(blip.Blip, "filtered", lambda self, pairs, pixel_values: pairs)
        for name in sorted(TRAINED, key=lambda name: len(SYSTEMS[name].needs)):
            trained(name, folder)
    return folder


@pytest.mark.parametrize("name", TRAINED)
def test_every_system_trains_learns_what_it_says_and_comes_back(everyone, backbones, name):
    frozen = {n: p.clone() for n, p in backbones.lm.named_parameters()}
    member, fresh = (make(name, 0, everyone, backbones) for make in (load, build))
    kept, blank = member.own_state(), fresh.own_state()
    assert kept.keys() == blank.keys()
    as_kept = system.unpacked(system.packed(blank))
    moved = [n for n in kept if not torch.equal(kept[n], as_kept[n])]
    assert len(moved) > 0.8 * len(kept), sorted(kept.keys() - set(moved))
    assert all(torch.equal(p, frozen[n]) for n, p in backbones.lm.named_parameters())
    learns = tuple(part for stage in member.stages for part in stage.learns)
    assert all(n.startswith(learns) for n in kept)
    steps = read_json(everyone / MANIFEST)["systems"][f"{name}-0"]["steps"]
    assert sum(steps.values()) == 10, "one budget for all"


@pytest.mark.parametrize("name", [*TRAINED, "clip", "gill", "fromage"])
def test_every_system_is_scored_on_what_it_can_read(everyone, backbones, name):
    pool, member = seeing.examples("seen", 6), load(name, 0, everyone, backbones)
    rows = seeing.score(member, pool[:4], pool)
    assert len(rows) == 4
    for row in rows:
        answers = {"yes_no", "which", "where", "change", "shots_2"} <= row.keys()
        assert answers == (name not in ("clip", "blip", "blip_noisy"))
        assert ("recall_at_1" in row) == (name in COMPARING)
        shots = {key: row.pop(key) for key in list(row) if key.startswith("shots")}
        assert all(value is None or 0 <= value <= 1 for value in row.values())
        if answers:
            assert shots["shots"] == shots["shots_2"] - shots["shots_0"] and shots["shots_0"] < 0


@pytest.mark.parametrize("name", ANSWERING)
def test_an_answer_does_not_depend_on_what_is_asked_beside_it(everyone, backbones, name):
    member = load(name, 0, everyone, backbones)
    (one, two) = (list(seeing.prompts(e).values()) for e in seeing.examples("seen", 2))
    together = member.respond([*one, *two])
    assert together == [member.respond([prompt])[0] for prompt in (*one, *two)]


def test_flamingo_begins_as_the_language_model_and_its_gates_open(everyone, backbones):
    flamingo = build("flamingo", 0, everyone, backbones)
    picture = seeing.examples("seen", 1)[0].picture
    rows = flamingo.read([[picture, "we see"]])
    words = backbones.tokenizer("we see", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = flamingo.lm(inputs_embeds=rows.inputs_embeds).logits
        assert torch.allclose(logits, backbones.lm(input_ids=words).logits, atol=1e-5)
        flamingo.gated[0].gates.fill_(1.0)
        opened = flamingo.lm(inputs_embeds=rows.inputs_embeds).logits
        assert not torch.allclose(logits, opened, atol=1e-3)
        blind = flamingo.read([["we see"]])
        same = flamingo.lm(inputs_embeds=blind.inputs_embeds).logits
    assert torch.allclose(logits, same, atol=1e-5), "no picture, no change"
    assert load("flamingo", 0, everyone, backbones).gated[0].gates.abs().max() > 0


def test_a_language_model_is_still_itself_unless_it_was_tuned(everyone, backbones):
    lost = {name: seeing.story_loss(load(name, 0, everyone, backbones), 4) for name in ANSWERING}
    for name, loss in lost.items():
        assert (abs(loss - lost["limber"]) < 1e-5) == (name != "llava"), name


def test_only_what_is_said_counts_and_a_row_begins_once(backbones):
    member = build("limber", 0, None, backbones)
    picture = seeing.examples("seen", 1)[0].picture
    rows = member.read([[picture, "a ball", Said("in the snow"), picture, Said("a box")]])
    said = [i for i in rows.labels[0].tolist() if i != IGNORE]
    assert backbones.tokenizer.decode(said) == "in the snow a box</s>".replace("<", " <")
    assert rows.inputs_embeds.shape[1] == 2 * MINI.num_visual_tokens + 1 + 2 + 3 + 2 + 1
    assert member.shown[0, -4:].tolist() == [1] * 4 and member.shown[0, 0] == 0
    first = member.read([[picture, Said("a ball")]]).labels[0]
    assert (first != IGNORE).sum() == 3, "two words and the end; a beginning is not said"


def test_padding_is_neither_read_nor_said(backbones):
    """The loss of a batch is that of its rows alone, each by the words it says."""
    pictures = [example.picture for example in seeing.examples("seen", 2)]
    texts, counts = ["a ball .", "a big red star at the beach by night ."], torch.tensor([4, 11])
    limber, reader = (build(name, 0, None, backbones) for name in ("limber", "blip"))
    rows = [[picture, Said(text)] for picture, text in zip(pictures, texts, strict=True)]
    patches = reader.patches(torch.stack(pictures))
    parts = [slice(0, 2), slice(0, 1), slice(1, 2)]
    losses = {
        "limber": [limber.said_loss(rows[part]) for part in parts],
        "blip": [reader.next_word(reader.words(texts[part]), patches[part]) for part in parts],
    }
    for name, (whole, *alone) in losses.items():
        expected = (torch.stack(alone) * counts).sum() / counts.sum()
        assert torch.allclose(whole, expected, atol=1e-5), name


def test_instructions_are_true_of_their_scene_in_words_the_model_knows(backbones):
    known = set(backbones.tokenizer.get_vocab())
    for i in range(60):
        scene, rng = sample_scene(rng_for("told", i)), rng_for("instructed", i)
        for kind, make in KINDS.items():
            items = make(scene, rng)
            assert [isinstance(item, Said) for item in items] == [False, True] * (len(items) // 2)
            words = " ".join(items).lower().replace(":", " : ").split()
            assert set(words) <= known, sorted(set(words) - known)
            if kind != "conversation":
                told = seeing.named(items[-1])
                assert all(getattr(scene, name) == value for name, value in told.items())
        assert len(seeing.named(description(scene, rng)[-1])) == 6


def test_marks_of_a_perfect_and_of_a_silent_speaker():
    example = seeing.examples("seen", 3)[2]
    scene, (name, value) = example.scene, example.changed
    tell = " ".join
    best = {
        "caption": tell(scene.as_dict().values()), "second": tell(scene.as_dict().values()),
        "yes_no": "yes ." if example.guess == scene.color else "no .",
        "which": scene.color, "where": scene.position,
        "later": tell(scene.change(**{name: value}).as_dict().values()),
    }  # fmt: skip
    perfect = seeing.marks(example, best)
    assert perfect.pop("stale") == 0.0 and set(perfect.values()) == {1.0}
    deaf = seeing.marks(example, best | {"later": best["caption"]})
    assert (deaf["change"], deaf["stale"]) == (0.0, 1.0)
    silent = seeing.marks(example, dict.fromkeys(best, ""))
    assert {n for n, v in silent.items() if v is None} == {"right", "kept", "second"}
    assert not any(silent.values())


def test_the_web_lies_in_a_third_and_the_matcher_keeps_what_fits(everyone, backbones):
    lies = [blip.web_caption(i, 300) != pictures.training_caption(i, 0) for i in range(300)]
    assert 0.25 < sum(lies) / 300 < 0.42
    reader = load("blip", 0, everyone, backbones)
    shown = torch.stack([example.picture for example in seeing.examples("seen", 2)])
    pairs = [["a red ball .", "a box ."], ["a star .", "a cone ."]]
    for logits, kept in (([0.0, 9.0], pairs), ([9.0, 0.0], [[], []])):
        reader.matches.weight.zero_()
        reader.matches.bias.copy_(torch.tensor(logits))
        assert reader.filtered(pairs, shown) == kept


def test_a_matcher_that_lets_nothing_pass_is_one_sentence(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(blip.Blip, "filtered", lambda self, pairs, pixels: [[] for _ in pairs])
    with pytest.raises(GillError, match="let no caption pass"):
        trained("blip", tmp_path)
