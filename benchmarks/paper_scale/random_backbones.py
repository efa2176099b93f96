"""Backbones of given shapes with random weights: as fast and as large as trained ones.

Nothing is read or downloaded. The tokenizers know made-up words, each of them one token.
"""

from typing import NamedTuple

import torch
from torch import nn

from gill_lite.errors import GillError
from gill_lite.model.backbones import Backbones, check_lm
from gill_lite.model.memory import CLIP_TEXT_L, CLIP_VISION_L14, OPT_6_7B, UNET_SD15, VAE_SD

SPECIAL = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
SPARE_ROWS = {"opt": 7}  # of the LM's embedding: OPT's tokenizer has 50,265 ids in 50,272 rows
# Stable Diffusion 1.5's scheduler; of 50 steps it runs the denoiser 51 times.
PNDM_SD15 = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "skip_prk_steps": True, "steps_offset": 1,
}  # fmt: skip


class Shapes(NamedTuple):
    """What the configurations of the five models say; `lm` names its `model_type`, too."""

    lm: dict
    text: dict
    vision: dict
    unet: dict
    vae: dict


PAPER_SHAPES = Shapes(
    {"model_type": "opt", **OPT_6_7B}, CLIP_TEXT_L, CLIP_VISION_L14, UNET_SD15, VAE_SD
)


def random_backbones(
    profile, device="cpu", dtype=torch.bfloat16, shapes: Shapes = PAPER_SHAPES
) -> Backbones:
    """What `load_backbones` gives, with random weights made on `device`.

    Raises GillError where `shapes.lm` is no configuration of a causal LM, or one that the
    joints cannot stand on.
    """
    from transformers import AutoModel, CLIPConfig, CLIPImageProcessor

    towers = {"text_config": shapes.text, "vision_config": shapes.vision}
    config = CLIPConfig(**towers, projection_dim=shapes.vision["projection_dim"])
    lm = random_lm(shapes.lm, dtype, device)
    with torch.device(device):
        vision = AutoModel.from_config(config, dtype=dtype)
    pipeline = random_pipeline(shapes, device, dtype)
    for module in (lm, vision, pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False)
    kind = lm.config.model_type
    words = word_tokenizer(lm.config.vocab_size - SPARE_ROWS.get(kind, 0))
    check_lm(lm, words, f"of random weights, model_type {kind}")
    return Backbones(profile, words, lm, vision, CLIPImageProcessor(), pipeline)


def random_lm(sizes: dict, dtype, device):
    """A causal LM, by the fields of its config.json."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if "model_type" not in sizes:
        raise GillError("the language model's configuration has no model_type, such as opt")
    try:
        config = AutoConfig.for_model(**sizes)
        with torch.device(device):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except (ValueError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        raise GillError(
            f"no causal LM can be made of this configuration ({reason}); take the config.json of "
            "a model that transformers knows"
        ) from error


def random_pipeline(shapes: Shapes, device, dtype):
    """Stable Diffusion of these shapes."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline
    from diffusers import UNet2DConditionModel as UNet
    from transformers import AutoModel, CLIPTextConfig

    text = CLIPTextConfig(**shapes.text)
    with torch.device(device):
        parts = {
            "text_encoder": AutoModel.from_config(text, dtype=dtype),
            # torch's own `to`: diffusers' warns of float32 modules, of which there are none
            "unet": nn.Module.to(UNet(**shapes.unet), dtype),
            "vae": nn.Module.to(AutoencoderKL(**shapes.vae), dtype),
        }
    pipeline = StableDiffusionPipeline(
        **parts,
        tokenizer=word_tokenizer(text.vocab_size, text.max_position_embeddings),
        scheduler=PNDMScheduler(**PNDM_SD15),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def word_tokenizer(size: int, max_length: int | None = None):
    """A tokenizer of `size` ids: four special ones, then the words w4, w5, ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(4, size))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    length = {} if max_length is None else {"model_max_length": max_length}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **SPECIAL, **length)
