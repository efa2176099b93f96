"""Loading the frozen models: chosen ones, small dtypes, 8 and 4 bits, and every refusal."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gill_lite.errors import GillError
from gill_lite.model import backbones, losses, tokens
from gill_lite.model.backbones import fingerprint, load_backbones
from gill_lite.model.checkpoint import load_joints, save_joints
from gill_lite.model.gill import Batch, build_gill
from gill_lite.profiles import MINI, PAPER, REVISIONS
from tests.helpers import tiny_backbones

LM_WIDTH = 64  # bitsandbytes quantises blocks of 64 numbers


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny random models as folders: lm, vision, diffusion."""
    root = tmp_path_factory.mktemp("hub")
    tiny = tiny_backbones.backbones()
    torch.manual_seed(0)
    tiny.lm = tiny_backbones.causal_lm("llama", len(tiny.tokenizer) + 3, LM_WIDTH)
    return tiny_backbones.save(tiny, root)


@pytest.fixture
def copies(folders, tmp_path):
    """The same, to be damaged."""
    return {what: shutil.copytree(path, tmp_path / what) for what, path in folders.items()}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def modules(loaded) -> list:
    pipeline = loaded.pipeline
    return [loaded.lm, loaded.vision, pipeline.unet, pipeline.vae, pipeline.text_encoder]


# ---- chosen models -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "bf16", "float16", torch.bfloat16])
def test_models_are_those_of_the_folders_frozen_and_of_one_dtype(folders, dtype):
    loaded = load_backbones(PAPER, dtype=dtype, **folders)
    wanted = {None: torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}
    for module in modules(loaded):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        assert {p.dtype for p in module.parameters()} == {wanted.get(dtype, dtype)}
    stored = load_file(folders["lm"] / "model.safetensors")["model.embed_tokens.weight"]
    got = loaded.lm.get_input_embeddings().weight
    assert torch.equal(got, stored.to(got.dtype))
    assert loaded.profile.lm == str(folders["lm"]) and loaded.profile.name == "paper"
    assert loaded.profile.steps == PAPER.steps


def test_the_mini_profile_takes_another_language_model(folders):
    loaded = load_backbones(MINI, lm=folders["lm"])
    assert type(loaded.lm).__name__ == "LlamaForCausalLM"
    assert (loaded.profile.lm, loaded.profile.vision) == (str(folders["lm"]), "clip")


def test_the_papers_ids_are_loaded_at_pinned_revisions(folders, monkeypatch):
    from transformers import AutoTokenizer

    asked = []

    def note(name, **options):
        asked.append((name, options.get("revision"), options.get("trust_remote_code")))
        raise OSError("enough seen")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", note)
    for lm in (None, folders["lm"]):
        with pytest.raises(GillError, match="enough seen"):
            load_backbones(PAPER, lm=lm)
    pinned = (PAPER.lm, REVISIONS[PAPER.lm], False)
    assert asked == [pinned, pinned, (str(folders["lm"]), None, False)], "the cache, then the hub"
    assert {PAPER.lm, PAPER.vision, PAPER.diffusion} == set(REVISIONS)


# ---- what cannot be loaded ---------------------------------------------------------------


def refused(says: str, **chosen) -> None:
    with pytest.raises(GillError, match=says) as caught:
        load_backbones(PAPER, **chosen)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_here_name_the_command_that_brings_them(folders):
    lm, vision = ({what: folders[what]} for what in ("lm", "vision"))
    refused("lm weights 'facebook/opt-6.7b' .*`gill-lite fetch opt` brings them")
    refused("vision weights 'openai/clip-.*`gill-lite fetch clip` brings them", **lm)
    refused("diffusion weights 'stable-.*`gill-lite fetch sd` brings them", **lm, **vision)
    refused("'nobody/nothing' .*hub id that this machine can reach", lm="nobody/nothing")
    refused("'./nowhere' cannot be loaded", lm="./nowhere")


def test_damaged_files_are_one_sentence_naming_the_folder(copies):
    path = copies["vision"] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(r"vision weights '.*/vision' cannot be loaded \(.*\); check that the folder", **copies)
    path.unlink()
    (copies["vision"] / "pytorch_model.bin").write_bytes(b"a pickle")
    refused("vision weights .* cannot be loaded .*safetensors", **copies)


def test_a_checkpoint_that_lacks_tensors_is_refused(copies):
    path = copies["lm"] / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    refused("lack 1 of the tensors .* LlamaForCausalLM .* model.layers.1.mlp.up_proj.weight",
            **copies)  # fmt: skip


def test_code_of_a_model_repository_never_runs(copies, tmp_path):
    config = json.loads((copies["lm"] / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM":
                                                 "own.OwnLM"}}  # fmt: skip
    (copies["lm"] / "config.json").write_text(json.dumps(config))
    (copies["lm"] / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refused("lm weights .* cannot be loaded", **copies)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["StableDiffusionXLPipeline", "FluxPipeline"])
def test_other_generators_are_refused_before_they_are_loaded(copies, kind):
    path = copies["diffusion"] / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": kind}))
    refused(f"generator '.*/diffusion' is a {kind}; .*Stable Diffusion 1.x or 2.x", **copies)


def test_bad_options_name_the_good_ones(folders):
    refused("quantize must be one of none, 8bit, 4bit, not '3bit'", quantize="3bit")
    refused("dtype must be fp32, bf16, fp16", dtype="int7")
    refused("dtype must be fp32, bf16, fp16", dtype="nn")


def test_quantising_without_its_package_names_it(monkeypatch):
    monkeypatch.setattr(backbones, "find_spec", lambda name: None)
    refused("quantize='4bit' needs the package bitsandbytes; `pip install", quantize="4bit")


def test_what_is_asked_of_the_quantisation(monkeypatch):
    monkeypatch.setattr(backbones, "find_spec", lambda name: SimpleNamespace())
    options = {kind: backbones._lm_options(kind, None) for kind in ("8bit", "4bit")}
    assert {each["dtype"] for each in options.values()} == {torch.bfloat16}
    eight, four = (each["quantization_config"] for each in options.values())
    assert eight.load_in_8bit and not eight.load_in_4bit
    assert four.load_in_4bit and four.bnb_4bit_quant_type == "nf4"
    assert four.bnb_4bit_compute_dtype == torch.bfloat16


# ---- 8 and 4 bits, where bitsandbytes is installed -----------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("quantize", "kind"), [("8bit", torch.int8), ("4bit", torch.uint8)])
def test_joints_train_around_a_quantised_language_model(folders, tmp_path, quantize, kind):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    loaded = load_backbones(PAPER, quantize=quantize, **folders)
    linear = loaded.lm.model.layers[0].mlp.up_proj.weight
    assert linear.dtype == kind and loaded.lm.get_input_embeddings().weight.dtype == torch.bfloat16
    gill = build_gill(tiny_backbones.profile(), loaded)
    texts = ["a small red ball", "a box"]
    captions = tokens.encode_captions(loaded.tokenizer, texts, gill.config.img_token_ids, 24)
    batch = Batch.of(gill.config, torch.zeros(2, 3, 16, 16), captions, torch.zeros(2, 77, 8))
    found = losses.objective(gill(batch), batch.prompt_targets)
    found.total.backward()
    assert all(torch.isfinite(value) for value in found)
    with_gradient = {n for n, p in gill.named_parameters() if p.grad is not None}
    assert with_gradient == set(gill.trainable_parameters())
    folder = save_joints(gill, tmp_path / "joints", {})
    again = load_joints(folder, loaded.lm, loaded.vision)
    again = losses.objective(again(batch), batch.prompt_targets)
    assert [float(a) for a in again] == pytest.approx([float(b) for b in found], rel=1e-5)
    exact = build_gill(tiny_backbones.profile(), load_backbones(PAPER, **folders))
    rough = {"8bit": 0.05, "4bit": 0.3}[quantize]  # tiny random layers suffer more than real ones
    exactly = losses.objective(exact(batch), batch.prompt_targets).total
    assert float(exactly) == pytest.approx(float(found.total), rel=rough)
    assert len(fingerprint(loaded)) == 16  # what a training run notes
