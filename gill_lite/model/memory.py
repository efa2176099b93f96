"""How much memory the paper's models take, counted from their shapes on torch's meta device.

Models are built there without weights, and a training pair walks through the real forward pass
as tensors without contents, so nothing here is a number somebody measured once. Attention is
counted in its plain form, which keeps somewhat more than a fused kernel does. What shapes do not
tell (CUDA's context, workspaces, fragments) is one stated allowance.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from gill_lite.model import losses
from gill_lite.model.config import GillConfig
from gill_lite.model.gill import Gill
from gill_lite.profiles import PAPER

GIB = 2**30
ALLOWANCE = 2 * GIB  # chosen: CUDA's context, workspaces, a picture being drawn, fragments
BYTES = 2  # of a number in bf16
LINEAR_BYTES = {"none": BYTES, "8bit": 1, "4bit": 0.5 + 4 / 64}  # 4bit: a float32 every 64 numbers
JOINT_BYTES = 16  # float32: weight, gradient, two moments of Adam
LOGIT_BYTES = 6  # its gradient in the backward pass, in float32 and in bf16
PROMPT = 2048  # positions of the KV cache that an answer is counted with: all that OPT has

# config.json of the hub's repositories at profiles.REVISIONS.
OPT_6_7B = {
    "vocab_size": 50272, "hidden_size": 4096, "word_embed_proj_dim": 4096, "ffn_dim": 16384,
    "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": PROMPT,
}  # fmt: skip
CLIP_TEXT_L = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "projection_dim": 768, "max_position_embeddings": 77,
}  # fmt: skip
CLIP_VISION_L14 = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "image_size": 224,
    "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
UNET_SD15 = {
    "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8, "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
VAE_SD = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


class Need(NamedTuple):
    """Bytes of one way to run the paper's model: some once, some for each pair of a batch."""

    what: str
    fixed: int
    each: int = 0
    batch: int = 0  # pairs

    @property
    def total(self) -> int:
        """Bytes with the whole batch."""
        return self.fixed + self.each * self.batch

    def pairs(self, memory: int) -> int:
        """How many pairs of the batch fit into `memory` bytes at once, 0 if none does."""
        return max(0, min(self.batch, (memory - self.fixed) // self.each)) if self.each else 0


@cache
def paper_models() -> dict[str, nn.Module]:
    """The paper's five frozen models on the meta device; the LM in bf16, as training runs it."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel
    from transformers import OPTConfig as LMConfig
    from transformers import OPTForCausalLM as LM

    towers = {"text_config": CLIP_TEXT_L, "vision_config": CLIP_VISION_L14, "projection_dim": 768}
    with torch.device("meta"):
        return {
            "lm": LM(LMConfig(**OPT_6_7B)).to(torch.bfloat16).eval(),
            "vision": CLIPModel(CLIPConfig(**towers)),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP_TEXT_L)),
            "unet": UNet2DConditionModel(**UNET_SD15),
            "vae": AutoencoderKL(**VAE_SD),
        }


@cache
def paper_gill() -> Gill:
    """The joints of the paper's sizes around its models, on the meta device."""
    models = paper_models()
    first = 50_266  # of the [IMG] tokens: OPT's tokenizer has 50,265, then <|image|>
    ids = tuple(range(first, first + PAPER.num_img_tokens))
    with torch.device("meta"):
        return Gill(models["lm"], models["vision"], GillConfig(ids, CLIP_TEXT_L["hidden_size"]))


def parameters(module: nn.Module) -> int:
    """How many numbers a module has; tied ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def weight_bytes(module: nn.Module, quantize: str = "none") -> int:
    """Bytes of a module in bf16, its linear layers quantised; its output rows never are."""
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    linear = sum(
        layer.weight.numel()
        for layer in module.modules()
        if isinstance(layer, nn.Linear) and layer is not head
    )
    return math.ceil((parameters(module) - linear) * BYTES + linear * LINEAR_BYTES[quantize])


def kept_bytes(run, *modules: nn.Module) -> int:
    """Bytes that autograd keeps of `run()` for the backward pass, weights not counted."""
    weights = {StorageWeakRef(p.untyped_storage()) for m in modules for p in m.parameters()}
    kept: dict[StorageWeakRef, int] = {}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(tensor)
        if StorageWeakRef(storage) not in weights:
            kept[StorageWeakRef(storage)] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()  # held until counted, so that no storage is used twice
    del result
    return sum(kept.values())


def lm_states(lm: nn.Module, embeds: Tensor) -> Tensor:
    """What `Gill.lm_states` gives for one row (1, T, D) without padding, also on the meta device.

    Mask and positions are given whole: OPT would make a mask of its own and, in some versions of
    transformers, look whether it is all ones.
    """
    count = embeds.shape[1]
    mask = torch.ones(1, 1, count, count, dtype=torch.bool, device=embeds.device).tril()
    positions = torch.arange(count, device=embeds.device)[None]  # (1, T)
    read = lm.base_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
    )
    return read.last_hidden_state


def pair_pass(gill: Gill, max_tokens: int) -> Tensor:
    """Both LM passes and all heads for one pair whose caption fills its `max_tokens`."""
    config, device = gill.config, gill.logit_scale.device
    table, num_img = gill.lm.get_input_embeddings().weight, config.num_img_tokens
    text = max_tokens - num_img
    total = gill.logit_scale * 0
    for positions, labels in ((config.num_visual_tokens + text, text), (max_tokens, text + 1)):
        embeds = torch.zeros(1, positions, table.shape[1], dtype=table.dtype, device=device)
        states = lm_states(gill.lm, embeds.requires_grad_())  # (1, T, D)
        targets = torch.zeros(1, labels, dtype=torch.long, device=device)
        total = total + losses.caption_loss(gill.logits(states[:, -labels:]), targets)
    hidden = states[:, -num_img:].to(gill.logit_scale.dtype)  # (1, R, D)
    return total + gill.prompt_embeds(hidden).sum() + gill.retrieval_embedding(hidden).sum()


@cache
def paper_needs() -> tuple[Need, ...]:
    """Training in bf16, and answering with the LM in bf16, 8 and 4 bits (paper Sec. 3)."""
    models, gill = paper_models(), paper_gill()
    joints = sum(p.numel() for p in gill.trainable_parameters().values())
    held = {name: weight_bytes(model) for name, model in models.items()}
    training = held["lm"] + held["vision"] + held["text_encoder"] + joints * JOINT_BYTES
    each = kept_bytes(lambda: pair_pass(gill, PAPER.max_caption_tokens), gill)
    vocabulary = gill.config.img_token_ids[-1] + 1
    each += PAPER.max_caption_tokens * vocabulary * LOGIT_BYTES
    cache_bytes = 2 * OPT_6_7B["num_hidden_layers"] * OPT_6_7B["hidden_size"] * PROMPT * BYTES
    others = sum(held.values()) - held["lm"] + joints * 4 + cache_bytes
    answers = {"none": "bf16", "8bit": "8 bits", "4bit": "4 bits"}
    return Need("train, bf16", training + ALLOWANCE, each, PAPER.batch_size), *(
        Need(f"answer, LM in {words}", weight_bytes(models["lm"], kind) + others + ALLOWANCE)
        for kind, words in answers.items()
    )
