"""Random backbones of a few thousand numbers, made in a second: genuine classes, no files."""

from types import SimpleNamespace

import torch

WORDS = "a small big red blue ball box at the beach on left by day night it turned img".split()


def tokenizer(max_length: int = 77, closing: str = "", bos: str | None = "</s>"):
    """Lower-case word tokenizer as in the mini world: </s> opens every text.

    bos=None: there is no such token, as in Qwen's.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    template = f"</s> $A {closing}".strip()
    inner.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=bos,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=max_length,
    )


def language_model(vocabulary: int, width: int = 16, positions: int = 96):
    """A two-layer OPT."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        word_embed_proj_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=2 * width,
        max_position_embeddings=positions,
        init_std=0.3,
    )
    return OPTForCausalLM(config).eval()


def causal_lm(kind: str, vocabulary: int, width: int = 16, **changes):
    """A two-layer language model of another family: llama, qwen2, qwen3, opt-350m, ..."""
    import transformers

    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gpt2": "GPT2"}.get(kind, "OPT")
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 96}
    if name == "OPT":  # its 350M: a narrow embedding, norms behind the layers, none at the end
        sizes |= {"word_embed_proj_dim": width // 2, "do_layer_norm_before": False}
        sizes |= {"ffn_dim": 2 * width, "init_std": 0.3}
    else:
        sizes |= {"initializer_range": 0.3, "bos_token_id": 2, "eos_token_id": 2}
    if name not in ("OPT", "GPT2"):
        sizes |= {"intermediate_size": 2 * width, "num_key_value_heads": 1}
    if name == "Qwen3":
        sizes |= {"head_dim": 8}
    config = getattr(transformers, f"{name}Config")(**{**sizes, **changes})
    kind = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    return getattr(transformers, kind)(config).eval()


def text_encoder_config(width: int):
    """Of a tiny Stable Diffusion of that prompt width: 768 is 1.x, 1024 is 2.x."""
    from transformers import CLIPTextConfig

    sizes = {"hidden_size": width, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "vocab_size": 4 + len(WORDS), "projection_dim": 8}
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    return CLIPTextConfig(**sizes, **ids, max_position_embeddings=77)


def clip():
    """A CLIP of 16x16 pixels, width 8."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2, "projection_dim": 8}
    text = {**tower, "vocab_size": 4 + len(WORDS), "max_position_embeddings": 77}
    text |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    vision = {**tower, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    return CLIPModel(config).eval()


def pipeline(text_config):
    """A StableDiffusionPipeline with everything tiny."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
    from diffusers import UNet2DConditionModel as UNet
    from transformers import CLIPTextModel

    autoencoder = AutoencoderKL(
        block_out_channels=[8], norm_num_groups=4, latent_channels=4, sample_size=16
    )
    unet = UNet(
        sample_size=16,
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=text_config.hidden_size,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    )
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=CLIPTextModel(text_config).eval(),
        tokenizer=tokenizer(closing="</s>"),
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def backbones(seed: int = 0):
    """What load_backbones gives, at toy size."""
    from transformers import CLIPImageProcessor

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, vision = tokenizer(96), clip()
        processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
        return SimpleNamespace(
            profile=profile(),
            tokenizer=words,
            lm=language_model(len(words)),
            vision=vision,
            image_processor=processor,
            pipeline=pipeline(vision.config.text_config),
        )


def save(tiny, folder) -> dict:
    """Write backbones as the paper profile reads them; lm, vision and diffusion -> folder."""
    for what, parts in {"lm": ("lm", "tokenizer"), "vision": ("vision", "image_processor")}.items():
        for part in parts:
            getattr(tiny, part).save_pretrained(folder / what)
    tiny.pipeline.save_pretrained(folder / "diffusion")
    return {what: folder / what for what in ("lm", "vision", "diffusion")}


def profile(**changes):
    """MINI at toy size."""
    from gill_lite.profiles import MINI

    small = {"ret_dim": 6, "mapper_width": 8, "mapper_layers": 1, "mapper_heads": 2}
    small |= {"mapper_ffn": 16, "max_caption_tokens": 24, "batch_size": 4, "warmup_steps": 2}
    return MINI.replace(**{**small, **changes})


def official_state(gill) -> dict:
    """The joints under their official names, as the official checkpoint holds them."""
    from gill_lite.model.official import under_official_names

    joints = {name: value.detach() for name, value in gill.trainable_parameters().items()}
    return under_official_names(joints, gill.config.mapper)
