"""Our model computes what the official code computed, tensor by tensor (fp32, CPU).

The recording says what must come out; where we compute it another way (KV cache, a declared
trainable set, a stable softmax) the last part shows that the values are the same.
"""

import json
import zlib

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file

from benchmarks import reference
from gill_lite.answering.decode import Sampling, generate, nucleus, pad_left
from gill_lite.fetching.convert import convert
from gill_lite.model import losses, official
from gill_lite.model.checkpoint import load_joints, load_official
from gill_lite.model.tokens import IGNORE, Captions, captioning_rows, img_rows
from tests.helpers.places import RECORDINGS
from tests.helpers.tiny_backbones import official_state

DATA = RECORDINGS / "official_parity"
INPUTS = ("in.input_ids", "in.caption_len", "in.pixel_values")


def recorded_names() -> list[str]:
    """Every output of the recording."""
    with safe_open(DATA / "expected.safetensors", framework="pt") as file:
        return sorted(set(file.keys()) - set(INPUTS))


def official_value(name: str, shape: list[int]) -> torch.Tensor:
    """The weight that the recording used; the rule is in the data's README."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    value = torch.randn(shape, generator=generator) * 0.05
    is_norm = "norm" in name and name.endswith("weight")
    return value + (1 if is_norm or name.endswith("logit_scale") else 0)


@pytest.fixture(scope="module")
def manifest():
    return json.loads((DATA / "official_state_manifest.json").read_text())


@pytest.fixture(scope="module")
def backbones():
    from transformers import CLIPVisionModel, OPTForCausalLM

    lm = OPTForCausalLM.from_pretrained(DATA / "facebook/opt-parity")
    return lm.eval(), CLIPVisionModel.from_pretrained(DATA / "openai/clip-parity").eval()


@pytest.fixture(scope="module", params=["model.", "module.model.", "converted"])
def gill(request, backbones, manifest, tmp_path_factory):
    """From a checkpoint in the official format, made from the manifest; or from our copy of it."""
    folder = tmp_path_factory.mktemp("official")
    converted = request.param == "converted"
    prefix = "model." if converted else request.param
    state = {n.replace("model.", prefix, 1): official_value(n, s) for n, s in manifest.items()}
    torch.save({"state_dict": state}, folder / official.WEIGHTS)
    (folder / official.ARGS).write_bytes((DATA / official.ARGS).read_bytes())
    if converted:
        return load_joints(convert(folder, folder.with_name("ours")), *backbones)
    return load_official(folder, *backbones)


@pytest.fixture(scope="module")
def recorded():
    return load_file(DATA / "expected.safetensors")


@torch.no_grad()
def compute(gill, given) -> dict[str, torch.Tensor]:
    """Every output of the recording, by our public functions, from its inputs alone."""
    out, images = {}, given["in.pixel_values"]
    captions = Captions(given["in.input_ids"], given["in.caption_len"])
    for join in (False, True):
        said = captioning_rows(captions, gill.config, join)
        case = f"captioning.concat{int(join)}"
        out |= {f"{case}.visual_embs": gill.visual_tokens(images), f"{case}.labels": said.labels}
        out[f"{case}.lm_loss"] = gill.captioning_pass(images, said)[None]
        rows = img_rows(captions, gill.config, join)
        read = gill.img_pass(rows)
        heads = {"retrieval": gill.retrieval_embedding, "generation": gill.prompt_embeds}
        for task, head in heads.items():
            case = f"{task}.concat{int(join)}"
            out |= {f"{case}.llm_hidden": read.hidden, f"{case}.labels": rows.labels}
            out |= {f"{case}.lm_loss": read.lm_loss[None]}
            out |= {f"{case}.last_embedding": head(read.hidden)}
        scaled = gill.image_features(images) * gill.logit_scale.exp()
        out[f"retrieval.concat{int(join)}.visual_embs"] = scaled
    return out | decoded(gill, prompt(gill, images, captions))


def prompt(gill, images, captions) -> torch.Tensor:
    """The first image's visual tokens, then the first caption without its [IMG] tokens."""
    count = int(captions.lengths[0]) - gill.config.num_img_tokens
    text = gill.embed(captions.input_ids[:1, :count])
    return torch.cat([gill.visual_tokens(images[:1]), text], dim=1)


def decoded(gill, embeds) -> dict[str, torch.Tensor]:
    """What the recording has of decoding; it chose [IMG0] twice by a huge scale factor."""
    greedy = generate(gill, embeds, sampling=Sampling(max_words=12))
    patient = generate(gill, embeds, sampling=Sampling(max_words=6, min_words=6))
    forced = generate(gill, embeds, sampling=Sampling(max_words=2, gen_scale_factor=1e6))
    hidden = forced.img_hidden[0][:1]
    return {
        "greedy.in": embeds,
        "greedy.ids": torch.tensor(greedy.ids),
        "greedy_minwords.ids": torch.tensor(patient.ids),
        "forced_img.ids": torch.tensor(forced.ids),
        "forced_img.hidden": hidden,
        "forced_img.gen_emb": gill.prompt_embeds(hidden),
        "forced_img.ret_emb": gill.ret_head(hidden[:, 0]),  # before it gets unit length
    }


@pytest.fixture(scope="module")
def computed(gill, recorded):
    return compute(gill, {name: recorded[name] for name in INPUTS})


def check(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal, or within 1e-5; official labels may be longer by positions without a label."""
    if theirs.dtype == torch.int64 and ours.shape != theirs.shape:
        assert ours.shape[1] < theirs.shape[1] and len(ours) == len(theirs)
        ours = F.pad(ours, (0, theirs.shape[1] - ours.shape[1]), value=IGNORE)
    atol = 0 if theirs.dtype == torch.int64 else 1e-5
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("name", recorded_names())
def test_recorded_tensor_is_reproduced(computed, recorded, name):
    check(computed[name], recorded[name])


def test_nothing_is_computed_that_is_not_recorded(computed):
    assert sorted(computed) == recorded_names() and len(computed) == 31


@pytest.mark.parametrize("name", recorded_names())
def test_each_comparison_can_fail(computed, recorded, name):
    wrong = recorded[name].clone()
    step = 1 if wrong.dtype == torch.int64 else 3e-5
    wrong.view(-1)[-1] += step
    with pytest.raises(AssertionError):
        check(computed[name], wrong)


CAPTION = {"captioning.concat0", "captioning.concat1"}
TASKS = {f"{task}.concat{i}" for task in ("retrieval", "generation") for i in (0, 1)}
RETRIEVED = {"retrieval.concat0.last_embedding", "retrieval.concat1.last_embedding"}
GENERATED = {"generation.concat0.last_embedding", "generation.concat1.last_embedding"}
FORCED = {"forced_img.hidden", "forced_img.gen_emb", "forced_img.ret_emb"}
IMAGES = {"retrieval.concat0.visual_embs", "retrieval.concat1.visual_embs"}
LOSSES = {f"{case}.lm_loss" for case in CAPTION | TASKS}
MOVES = {
    "logit_scale": IMAGES,
    "visual_fc": IMAGES,
    "ret_head": RETRIEVED | {"forced_img.ret_emb"},
    "mapper.queries": GENERATED | {"forced_img.gen_emb"},
    "mapper.project_in": GENERATED | {"forced_img.gen_emb"},
    "mapper.transformer": GENERATED | {"forced_img.gen_emb"},
    "mapper.project_out": GENERATED | {"forced_img.gen_emb"},
    "visual_embeddings": {f"{c}.{n}" for c in CAPTION for n in ("visual_embs", "lm_loss")}
    | FORCED | {"greedy.in"},
    "img_embeddings": {f"{case}.llm_hidden" for case in TASKS} | LOSSES | RETRIEVED | GENERATED
    | FORCED,
}  # fmt: skip


@pytest.mark.parametrize("joint", MOVES)
def test_each_joint_moves_its_outputs_and_no_others(gill, computed, recorded, joint):
    """So a joint that is not loaded, or feeds another output, would be seen."""
    own = [p for name, p in gill.trainable_parameters().items() if name.startswith(joint)]
    before = [p.detach().clone() for p in own]
    with torch.no_grad():
        for p in own:
            p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    try:
        moved = compute(gill, {name: recorded[name] for name in INPUTS})
    finally:
        for p, value in zip(own, before):
            p.data.copy_(value)
    floats = [name for name in moved if moved[name].is_floating_point()]
    assert {n for n in floats if (moved[n] - computed[n]).abs().max() > 1e-5} == MOVES[joint]


def test_forced_states_come_from_the_public_function_too(gill, recorded):
    hidden = gill.img_states(recorded["greedy.in"])
    check(hidden, recorded["forced_img.hidden"])
    check(gill.prompt_embeds(hidden), recorded["forced_img.gen_emb"])
    unit = F.normalize(recorded["forced_img.ret_emb"], dim=-1)
    check(gill.retrieval_embedding(hidden), unit)


def test_training_mode_gives_the_same_values(gill, recorded):
    captions = Captions(recorded["in.input_ids"], recorded["in.caption_len"])
    gill.train()
    got = gill.prompt_embeds(gill.img_pass(img_rows(captions, gill.config)).hidden)
    gill.eval()
    check(got, recorded["generation.concat0.last_embedding"])


def test_names_go_back_to_the_official_ones(gill, manifest):
    state = official_state(gill)
    assert {name: list(value.shape) for name, value in state.items()} == manifest
    assert all(torch.equal(state[name], official_value(name, s)) for name, s in manifest.items())


# ---- where we compute it another way ------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    "sampling, kinds",
    [
        (Sampling(max_words=12), (12, 0)),
        (Sampling(max_words=5, min_words=3, gen_scale_factor=1e6), (3, 2)),
        (Sampling(max_words=3, ret_scale_factor=50.0, gen_scale_factor=50.0), (0, 3)),
    ],
)
def test_kv_cache_equals_reading_everything_anew(gill, recorded, sampling, kinds):
    """Alone and in a batch with a shorter prompt. The recording itself says one word only, so
    its minimum of words changes nothing; here each rule does (`kinds`: words, images)."""
    first = recorded["greedy.in"][0]
    prompts = [first, first[3:]]
    expected = [reference.decode(gill, p, sampling) for p in prompts]
    words, images = kinds
    assert len(expected[0]) == words + 8 * images
    alone = [generate(gill, p[None], sampling=sampling) for p in prompts]
    batch = generate(gill, *pad_left(prompts), sampling)
    for row, ids in enumerate(expected):
        states = reference.states_of(gill, prompts[row], ids)
        assert alone[row].ids[0] == batch.ids[row] == ids
        places = [i for i, token in enumerate(ids) if token == gill.config.img_token_ids[0]]
        hidden = [states[i : i + 8] for i in places]
        hidden = torch.stack(hidden) if hidden else states.new_zeros(0, 8, 64)
        check(alone[row].img_hidden[0], hidden)
        check(batch.img_hidden[row], hidden)


def test_declared_rows_learn_as_in_a_whole_vocabulary(gill, recorded):
    """Official: the whole tied table gets gradients, old rows are masked. Ours: the rows alone."""
    from transformers import OPTForCausalLM

    captions = Captions(recorded["in.input_ids"], recorded["in.caption_len"])
    lm = OPTForCausalLM.from_pretrained(DATA / "facebook/opt-parity").eval()
    lm.requires_grad_(False)
    lm.resize_token_embeddings(gill.config.img_token_ids[-1] + 1, mean_resizing=False)
    table = lm.get_input_embeddings().weight.requires_grad_()
    with torch.no_grad():
        table[-8:] = gill.img_embeddings
        table[gill.own_rows : -8] = gill.filler_rows
    rows = img_rows(captions, gill.config)
    labels = rows.labels
    mask = (torch.arange(labels.shape[1]) < captions.lengths[:, None]).long()
    ids = captions.input_ids[:, : labels.shape[1]]
    lm(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    table.grad[:-8] = 0

    own = torch.nn.Parameter(gill.img_embeddings.detach().clone())
    gill.zero_grad()
    gill.img_pass(rows).lm_loss.backward()
    check(gill.img_embeddings.grad, table.grad[-8:])
    assert gill.img_embeddings.grad[0].abs().max() > 1e-3
    own.grad = gill.img_embeddings.grad.clone()
    gill.zero_grad()
    for parameter in (own, table):
        torch.optim.AdamW([parameter], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01).step()
    check(own, table[-8:])
    assert all(p.grad is None for p in gill.lm.parameters())


def test_stable_losses_have_the_values_of_the_plain_formulas(recorded):
    """Log of a sum of exponents, as on paper; large logits overflow there and not in ours."""
    images = recorded["retrieval.concat0.visual_embs"]  # times the inverse temperature
    text = recorded["retrieval.concat0.last_embedding"]
    products = images @ text.T
    plain = (products.exp().sum(1).log() + products.exp().sum(0).log()) / 2 - products.diag()
    got = losses.retrieval_loss(text, F.normalize(images, dim=-1), images.norm(dim=1)[0].log())
    check(got, plain.mean())
    logits, targets = torch.randn(5, 307) * 4, torch.tensor([0, 3, IGNORE, 306, 9])
    rows = [(row.exp().sum().log() - row[t]) for row, t in zip(logits, targets) if t != IGNORE]
    check(losses.caption_loss(logits, targets), torch.stack(rows).mean())
    assert losses.caption_loss(logits + 1e4, targets).isfinite()
    assert not (logits + 1e4).exp().sum().isfinite()


@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_sampling_weights_are_the_official_ones(top_p):
    """Official: exp of the logits left over, unnormalised, which overflows above 88."""
    logits = torch.randn(4, 307, generator=torch.Generator().manual_seed(0)) * 3
    ordered, index = logits.sort(descending=True)
    over = ordered.softmax(-1).cumsum(-1) > top_p
    out = torch.cat([torch.zeros(4, 1, dtype=torch.bool), over[:, :-1]], dim=1)
    weights = logits.scatter(1, index, ordered.masked_fill(out, -torch.inf)).exp()
    if top_p == 1.0:
        weights = logits.exp()
    expected = weights / weights.sum(1, keepdim=True)
    got = nucleus(logits, top_p)
    check(got / got.sum(1, keepdim=True), expected)
    assert nucleus(logits + 100, top_p).isfinite().all()
    check(nucleus(logits + 100, top_p), got)
