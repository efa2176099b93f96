"""The training loop: order, schedule, what changes and what does not, killed and resumed."""

import io
import json
import sys
import tarfile

import pytest
import torch
from safetensors.torch import load_file

from gill_lite import profiles
from gill_lite.cli import main as cli
from gill_lite.errors import GillError
from gill_lite.model import checkpoint, tokens
from gill_lite.model.gill import Batch, build_gill
from gill_lite.profiles import PAPER
from gill_lite.training import processes
from gill_lite.training.data import Order, image_features
from gill_lite.training.processes import split_batch
from gill_lite.training.step import Stepper, joins, label_counts, learning_rate
from gill_lite.training.train import LOG, TENSORBOARD, train
from tests.helpers import tiny_backbones, tiny_launch

WORDS = ["a small red ball", "a big blue box", "a ball at the beach", "a box by night", "it turned"]
PAIRS = [(i, f"{WORDS[i % 5]} {WORDS[i % 3]}") for i in range(10)]


@pytest.fixture(scope="module")
def backbones():
    return tiny_backbones.backbones()


@pytest.fixture(scope="module")
def features(backbones):
    width = backbones.vision.config.vision_config.hidden_size
    return torch.randn(10, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def run(backbones, features, tmp_path):
    """train() on the tiny pairs; `where` is a folder's name."""

    def call(where, pairs=PAIRS, profile=None, **options):
        options = {"image_features": features, "log_every": 1, "save_every": 2, **options}
        profile = profile or tiny_backbones.profile()
        folder = tmp_path / where
        return train(profile, backbones, pairs, folder, **{"seed": 1, "steps": 6, **options})

    return call


def test_learning_rate_warms_up_and_decays_as_in_the_official_code():
    steps = (0, 1_000, 2_000, 11_999, 12_000, 19_999)
    rates = [learning_rate(PAPER, step) for step in steps]
    assert rates == pytest.approx([0, 5e-4, 1e-3, 1e-3, 1e-4, 1e-4])


def test_each_epoch_is_a_permutation_and_a_later_start_goes_on():
    batches = list(Order(size=10, batch_size=4, seed=0, start=0, steps=6))
    for epoch in range(3):
        pair = batches[2 * epoch] + batches[2 * epoch + 1]
        assert {e for e, _ in pair} == {epoch}
        assert len({i for _, i in pair}) == 8
    assert batches[0] != [(0, i) for _, i in batches[2]]
    assert list(Order(10, 4, seed=0, start=3, steps=6)) == batches[3:]
    assert list(Order(10, 4, seed=1, start=0, steps=6)) != batches


def test_a_dataset_smaller_than_a_batch_is_refused():
    with pytest.raises(GillError, match="3 pairs, fewer than one batch of 4"):
        Order(3, 4, seed=0, start=0, steps=1)


def test_captions_are_joined_with_the_given_probability():
    assert {joins(0, step, 0.0) for step in range(50)} == {(False, False)}
    assert {joins(0, step, 1.0) for step in range(50)} == {(True, True)}
    draws = [joins(0, step, 0.5) for step in range(400)]
    assert len(set(draws)) == 4  # the two passes draw on their own
    share = sum(captioning for captioning, _ in draws) / 400
    assert 0.4 < share < 0.6  # four standard deviations


def test_only_the_joints_change(run, backbones):
    before = {
        name: {n: v.clone() for n, v in module.state_dict().items()}
        for name, module in (("lm", backbones.lm), ("vision", backbones.vision))
    }
    start = build_gill(tiny_backbones.profile(), backbones, seed=1)
    gill = run("out")
    for name, module in (("lm", backbones.lm), ("vision", backbones.vision)):
        for n, value in module.state_dict().items():  # the LM's embedding rows are among them
            assert torch.equal(value, before[name][n]), f"{name}.{n}"
    old = start.trainable_parameters()
    same = [n for n, value in gill.trainable_parameters().items() if torch.equal(value, old[n])]
    assert same == []
    norms = gill.img_embeddings.norm(dim=1)
    torch.testing.assert_close(norms, gill.row_norm.expand(8))


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


class DiesAt:
    """PAIRS until so many were read."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return len(PAIRS)

    def __getitem__(self, i):
        self.count -= 1
        if self.count < 0:
            raise Killed
        return PAIRS[i]


def log_of(folder):
    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{n: v for n, v in row.items() if n != "seconds"} for row in rows]


def test_killed_and_resumed_ends_bit_identical(run, tmp_path):
    run("whole")
    with pytest.raises(Killed):
        run("killed", pairs=DiesAt(5 * 4 + 1))  # batches of 4: dies in the sixth step
    with open(tmp_path / "killed" / LOG, "a") as file:
        file.write('{"step": 5, "lo')  # a line torn by the kill
    run("killed")
    whole, killed = (
        (tmp_path / name / checkpoint.WEIGHTS).read_bytes() for name in ("whole", "killed")
    )
    assert whole == killed
    rows = log_of(tmp_path / "whole")
    assert [row["step"] for row in rows] == list(range(6))
    assert rows == log_of(tmp_path / "killed")


def test_a_finished_run_resumes_to_itself_and_can_be_prolonged(run, tmp_path):
    run("long", steps=6)
    run("short", steps=4)
    done = run("short", steps=4, pairs=DiesAt(0))  # reads nothing
    again = build_of(tmp_path / "short", done)
    assert torch.equal(done.img_embeddings, again.img_embeddings)
    longer = run("short", steps=6)
    assert torch.equal(longer.img_embeddings, build_of(tmp_path / "long", done).img_embeddings)


def build_of(folder, gill):
    return checkpoint.load_joints(folder, gill.lm, gill.vision)


def test_only_the_last_checkpoints_are_kept(run, tmp_path):
    run("out", steps=8)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    states = ["state-00000006.safetensors", "state-00000008.safetensors"]
    assert names == [".lock", "config.json", "joints.safetensors", LOG, *states]


def test_other_settings_are_refused_unless_started_anew(run, tmp_path):
    run("out", steps=2)
    with pytest.raises(GillError, match="mapper was 'gill' and is 'mlp'; seed was 1 and is 2"):
        run("out", steps=4, seed=2, mapper="mlp")
    with pytest.raises(GillError, match="2 steps behind it, more than the 1 asked for"):
        run("out", steps=1)
    run("out", steps=1, seed=2, resume=False)
    assert [row["step"] for row in log_of(tmp_path / "out")] == [0]


def test_other_backbones_are_refused(run, features, tmp_path):
    run("out", steps=2)
    other = tiny_backbones.backbones(seed=1)
    with pytest.raises(GillError, match="backbones was"):
        train(
            tiny_backbones.profile(), other, PAIRS, tmp_path / "out", 1, steps=4,
            image_features=features,
        )  # fmt: skip


def test_a_loss_that_is_not_a_number_stops_the_run(run, features, tmp_path):
    broken = features.clone()
    broken[7] = torch.nan
    with pytest.raises(
        GillError, match=r"stopped at step \d: .*loss.* not finite for the pairs .*7"
    ):
        run("out", image_features=broken)
    assert not (tmp_path / "out" / checkpoint.WEIGHTS).exists()


def test_steps_and_batches_that_cannot_be(run):
    with pytest.raises(GillError, match="steps must be at least 1"):
        run("out", steps=0)
    with pytest.raises(GillError, match="batch_size=3 is odd, .*; take 4 or 2$"):
        run("out", profile=tiny_backbones.profile(batch_size=3))


def test_pictures_train_as_their_features_do(run, backbones, tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (3, 16, 16), dtype=np.uint8) for _ in PAIRS]
    pairs = [(picture, caption) for picture, (_, caption) in zip(pictures, PAIRS, strict=True)]
    run("pixels", pairs=pairs, image_features=None, steps=2)
    run("features", image_features=image_features(backbones, pictures, batch_size=3), steps=2)
    for ours, theirs in zip(*(log_of(tmp_path / n) for n in ("pixels", "features")), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_epoch_is_told_to_datasets_that_ask(run, tmp_path):
    class Pairs(list):
        epochs: list = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    pairs = Pairs(PAIRS)
    run("out", pairs=pairs)  # two batches of 4 out of 10 an epoch
    assert pairs.epochs == [0, 1, 2]


def test_a_few_pairs_are_learned(run, tmp_path):
    profile = tiny_backbones.profile(learning_rate=1e-2)
    run("out", profile=profile, pairs=PAIRS[:4], steps=60, save_every=60)
    rows = log_of(tmp_path / "out")
    for part in ("captioning", "img_lm", "retrieval", "generation"):
        assert sum(r[part] for r in rows[-5:]) < 0.9 * sum(r[part] for r in rows[:5]), part


# Parts of a batch ------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "processes", "micro"), [(200, 8, 1), (200, 3, 7), (48, 1, 1)])
def test_parts_are_neighbours_in_whole_pairs_and_make_up_the_batch(size, processes, micro):
    profile = PAPER.replace(batch_size=size)
    rows = []
    for process in range(processes):
        part = split_batch(profile, process, processes, micro)
        own = list(range(size))[part.own]
        assert part.first == own[0] and len(part.micro_batches) == micro
        pieces = [own[which] for which in part.micro_batches]
        assert sum(pieces, []) == own
        rows += pieces
    assert sum(rows, []) == list(range(size))
    sizes = {len(piece) for piece in rows}
    assert all(n % 2 == 0 for n in sizes) and max(sizes) - min(sizes) <= 2


def test_parts_of_an_order_make_up_the_order():
    whole = list(Order(10, 4, 0, start=1, steps=6))
    parts = [list(Order(10, 4, 0, 1, 6, own)) for own in (slice(0, 2), slice(2, 4))]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    assert Order(10, 4, 0, 1, 6, slice(0, 2)).batch(1) == whole[0]


def test_a_batch_too_small_for_its_parts_is_refused(run):
    with pytest.raises(GillError, match="batch_size=4 cannot be split over 1 processes with .*=3"):
        run("out", gradient_accumulation_steps=3)
    with pytest.raises(GillError, match="batch_size=8 cannot be split over 5 processes"):
        split_batch(PAPER.replace(batch_size=8), 0, 5)
    assert split_batch(PAPER.replace(batch_size=5, join_probability=0), 4, 5).first == 4


@pytest.mark.parametrize("join", [False, True])
def test_counts_are_those_of_the_passes(backbones, join):
    gill = build_gill(tiny_backbones.profile(), backbones)
    captions = [caption for _, caption in PAIRS[:6]]
    captions = tokens.encode_captions(backbones.tokenizer, captions, gill.config.img_token_ids, 24)
    batch = Batch.of(gill.config, torch.randn(6, 8), captions, torch.zeros(6), join, join)
    rows = batch.captioning_rows, batch.img_rows
    predicted = [  # by the passes: a label for each position but the first
        sum(label != tokens.IGNORE for row in each.labels.tolist() for label in row[1:])
        for each in rows
    ]
    assert label_counts(batch).tolist() == [*predicted, 6]


def test_a_process_adds_its_share_of_infonce(backbones):
    """Gradients of all processes are summed, so each must count only its part."""
    profile = tiny_backbones.profile()
    gill = build_gill(profile, backbones)
    steppers = [Stepper(profile, gill, split_batch(profile, 0, n)) for n in (1, 2)]
    text, image = torch.eye(6)[:4], torch.eye(6)[1:5]
    whole, half = (each.contrast(text, image, gill.logit_scale) for each in steppers)
    torch.testing.assert_close(2 * half, whole)


def test_micro_batches_compute_what_the_whole_batch_computes(run, tmp_path):
    run("one")
    run("two", gradient_accumulation_steps=2)
    for ours, theirs in zip(*(log_of(tmp_path / name) for name in ("two", "one")), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_processes_that_see_other_checkpoints_are_refused(run, monkeypatch):
    run("out", steps=2)
    monkeypatch.setattr(processes, "agree", lambda value, device: value != 2)
    with pytest.raises(GillError, match="do not see the same checkpoints in .*out"):
        run("out", steps=4)


# Precision, randomness, files ------------------------------------------------------------


def test_bf16_keeps_joints_and_moments_in_float32(features, tmp_path):
    half = tiny_backbones.backbones()
    for module in (half.lm, half.vision, half.pipeline.text_encoder):
        module.bfloat16()
    options = {"image_features": features, "steps": 4, "log_every": 1}
    profile = tiny_backbones.profile()
    gill = train(profile, half, PAIRS, tmp_path / "half", 1, mixed_precision="bf16", **options)
    assert {p.dtype for p in gill.trainable_parameters().values()} == {torch.float32}
    state = load_file(tmp_path / "half" / "state-00000004.safetensors")
    assert {name.split("/")[0] for name in state} == {"joints", "exp_avg", "exp_avg_sq"}
    assert {value.dtype for value in state.values()} == {torch.float32}
    train(profile, tiny_backbones.backbones(), PAIRS, tmp_path / "full", 1, **options)
    for ours, theirs in zip(*(log_of(tmp_path / n) for n in ("half", "full")), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.03)
        assert ours["loss"] != theirs["loss"]


def test_joints_of_16_bits_and_unknown_precisions_are_refused(backbones):
    gill, part = build_gill(tiny_backbones.profile(), backbones), split_batch(PAPER)
    with pytest.raises(GillError, match="mixed_precision must be no or bf16, not fp16"):
        Stepper(PAPER, gill, part, "fp16")
    gill.ret_head.bfloat16()
    with pytest.raises(GillError, match="in float32, but ret_head.weight is torch.bfloat16"):
        Stepper(PAPER, gill, part)


def test_no_step_reads_or_moves_the_global_generators(run, tmp_path):
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        run(f"out{seed}")
        assert torch.equal(torch.get_rng_state(), before)
    one, two = ((tmp_path / f"out{i}" / checkpoint.WEIGHTS).read_bytes() for i in (1, 2))
    assert one == two


def test_text_embeddings_are_computed_each_step_and_kept_nowhere(run, tmp_path, monkeypatch):
    module, asked = sys.modules["gill_lite.training.train"], []
    compute = module.prompt_targets
    monkeypatch.setattr(module, "prompt_targets", lambda *a: asked.append(a[1]) or compute(*a))
    run("out", steps=4)
    assert [len(captions) for captions in asked] == [4] * 4
    assert {path.name.split("-")[0] for path in tmp_path.rglob("*") if path.is_file()} == {
        *(checkpoint.CONFIG, checkpoint.WEIGHTS, LOG, "state", ".lock"),
    }
    names = set(load_file(tmp_path / "out" / "state-00000004.safetensors"))
    gill = run("out", steps=4)
    assert {n.split("/", 1)[1] for n in names} == set(gill.trainable_parameters())


def test_keep_and_what_a_kill_left_half_written(run, tmp_path):
    run("out", steps=8, keep=3)
    torn = tmp_path / "out" / ".state-00000010.safetensors.x1y2"
    torn.write_bytes(b"half")
    run("out", steps=10, keep=1)
    states = sorted(path.name for path in (tmp_path / "out").glob("*state*"))
    assert states == ["state-00000010.safetensors"] and not torn.exists()
    with pytest.raises(GillError, match="keep must be at least 1 checkpoint, not 0"):
        run("out", keep=0)


def test_tensorboard_shows_the_numbers_of_the_log(run, tmp_path):
    reason = "TensorBoard is optional: pip install 'gill-lite[paper]'"
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    )
    run("out", tensorboard=True)
    shown = accumulator.EventAccumulator(str(tmp_path / "out" / TENSORBOARD))
    shown.Reload()
    losses = [(event.step, event.value) for event in shown.Scalars("train/loss")]
    assert losses == [(row["step"], row["loss"]) for row in log_of(tmp_path / "out")]


def test_tensorboard_that_is_not_installed_is_one_sentence(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(GillError, match=r"needs the package tensorboard; .*gill-lite\[paper\]"):
        run("out", tensorboard=True)


# The command -----------------------------------------------------------------------------


def test_pairs_that_do_not_fit_together_are_refused(tmp_path, monkeypatch, capsys):
    def call(*typed: str, profile="paper") -> str:
        assert cli.main(["train", f"--profile={profile}", f"-o={tmp_path}", *typed]) == 2
        return capsys.readouterr().err

    assert "belong together; give both" in call("--captions=a.tsv")
    assert "not both" in call("--captions=a.tsv", "--images=.", "--shards=a.tar")
    assert "--profile paper trains on real pairs: give --captions" in call()
    with monkeypatch.context() as patch:
        patch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")  # as accelerate launch sets it
        assert "mixed precision must be no or bf16, not fp16" in call(profile="mini")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "told to use FSDP" in call(profile="mini")


def write_shard(path, pictures):
    """As img2dataset writes it; picture i is a grey of i."""
    from PIL import Image

    with tarfile.open(path, "w") as tar:
        for i in pictures:
            picture = io.BytesIO()
            Image.new("RGB", (20, 20), (i, i, i)).save(picture, "JPEG")
            text = tiny_launch.CAPTIONS[i % 10].encode()
            for suffix, content in ((".jpg", picture.getvalue()), (".txt", text), (".json", b"{}")):
                member = tarfile.TarInfo(f"{i:09d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_the_paper_profile_trains_on_shards_and_the_models_named(tmp_path, monkeypatch, capsys):
    tiny_backbones.save(tiny_backbones.backbones(), tmp_path)
    for number in range(3):
        write_shard(tmp_path / f"{number:05d}.tar", range(10 * number, 10 * number + 10))
    monkeypatch.setitem(profiles.PROFILES, "paper", PAPER.replace(**tiny_launch.TINY))
    made = []
    keep = lambda *given, **more: made.append(train(*given, **more))  # noqa: E731
    monkeypatch.setattr("gill_lite.training.train.train", keep)
    lm = str(tmp_path / "lm")
    typed = [f"--{name}={tmp_path / name}" for name in ("lm", "vision", "diffusion", "output-dir")]
    typed += ["--profile=paper", f"--shards={tmp_path / '{00000..00002}.tar'}"]
    typed = ["train", *typed, "--mixed-precision=bf16"]
    assert cli.main([*typed, *"--steps 2 --batch-size 6".split(),
                     "--gradient-accumulation-steps=3"]) == 0  # fmt: skip
    assert next(made[0].lm.parameters()).dtype == torch.bfloat16
    assert made[0].img_embeddings.dtype == torch.float32
    assert "the joints are in" in capsys.readouterr().out
    path = tmp_path / "output-dir" / checkpoint.CONFIG
    about = json.loads(path.read_text())["provenance"]
    assert about["settings"]["lm"] == lm and about["settings"]["batch_size"] == 6
    assert about["settings"]["pairs"] == about["data"]["pairs"] == 30
    assert about["settings"]["data"] == about["data"]["digest"]
    assert about["settings"]["mixed_precision"] == "bf16"
    assert cli.main([*typed, "--steps=4", "--batch-size=8"]) == 2
    assert "batch_size was 6 and is 8" in capsys.readouterr().err


# ---- retrieval only, as FROMAGe ----


def test_training_goes_on_from_given_joints_and_keeps_their_history(
    run, backbones, tmp_path, capsys
):
    run("first", steps=2, provenance={"command": "by hand", "official_args": {"opt": "x"}})
    start = checkpoint.read_joints(tmp_path / "first")
    began = run("second", steps=1, joints=tmp_path / "first", seed=5)
    again = checkpoint.read_joints(tmp_path / "second")
    fresh = run("third", steps=1, seed=5)
    for name, value in began.trainable_parameters().items():
        if name == "visual_fc.weight":  # one step of the warm-up moves nothing
            assert torch.equal(value, start.joints[name])
            assert not torch.equal(value, fresh.trainable_parameters()[name])
    assert again.provenance["earlier"] == start.provenance
    assert len(again.provenance["joints_sha256"]) == 64
    with pytest.raises(GillError, match="joints was '.*' and is 'absent'"):
        run("second", steps=2, seed=5)
    typed = ["train", "--joints", str(tmp_path / "first"), "--num-img-tokens=4"]
    assert cli.main([*typed, "-o", str(tmp_path / "out")]) == 2
    assert "--num-img-tokens 4 does not fit the joints in" in capsys.readouterr().err


def test_training_does_not_go_on_from_joints_of_other_backbones(run, tmp_path):
    told = {"command": "gill-lite train --seed 3", "settings": {"backbones": "0" * 16}}
    checkpoint.save_joints(run("first", steps=1), tmp_path / "first", told)
    with pytest.raises(GillError, match="first were trained on other .*`gill-lite train --seed 3`"):
        run("second", steps=1, joints=tmp_path / "first")


def test_joints_without_a_mapper_only_retrieve(backbones, features, tmp_path):
    profile = tiny_backbones.profile(num_img_tokens=1)
    options = {"steps": 2, "mapper": "none", "image_features": features, "log_every": 1}
    gill = train(profile, backbones, PAIRS, tmp_path, **options)
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert all(row["generation"] == 0 and row["retrieval"] > 0 for row in rows)
    again = checkpoint.load_joints(tmp_path, backbones.lm, backbones.vision)
    assert not [name for name in again.trainable_parameters() if name.startswith("mapper")]
    hidden = torch.ones(1, 1, 16)
    assert torch.equal(again.retrieval_embedding(hidden), gill.retrieval_embedding(hidden))
    with pytest.raises(GillError, match="these joints only retrieve"):
        again.prompt_embeds(hidden)
