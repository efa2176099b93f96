"""DALL-E: a picture becomes 64 words of a picture language, and one language model says both.

First a VQ autoencoder learns the picture language (DALL-E has a discrete VAE, whose words are drawn
by chance and not looked up; diffusers has none to train). Then an OPT from a random start reads a
caption and goes on with the picture's codes. Drawing is reading on, code by code, several
candidates a text, of which CLIP takes the nearest. Ramesh et al. 2021, arXiv:2102.12092.

Axes: B pictures, T text positions, S codes of a picture, V words and codes together.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gill_lite.evaluation.drawers import weights_sha256
from gill_lite.evaluation.metrics import Judge
from gill_lite.family import DRAW
from gill_lite.family.drawing import joined
from gill_lite.family.system import Member, Stage
from gill_lite.model.vectors import read_texts
from gill_lite.pretraining.lm import POSITIONS, tiny_opt
from gill_lite.pretraining.loop import read_tensors, write_tensors
from gill_lite.world.pictures import hash_seed, signed_pixels

GRID, CODES = 8, 512  # codes along a side of a picture; words of the picture language
PATCH = 2  # pixels to a side that the autoencoder reads as one, of 12 numbers: half the time
CHANNELS, LATENT = (32, 64, 96), 16
WIDTH, LAYERS = 192, 4
RESTART = 20  # steps between looks for codes that nothing uses
TEXT_SHARE = 1 / 8  # of the loss, as in DALL-E
CANDIDATES = 4  # pictures a text, of which CLIP takes one; DALL-E drew 512
BEGIN = "<s>"  # stands between text and picture; no text has it


def build(backbones, seed: int = 0, root=None) -> "Dalle":
    """The system, untrained."""
    return Dalle(build_vq(), build_lm(len(backbones.tokenizer)), backbones)


def build_vq(channels=CHANNELS):
    """VQModel from patches to 8x8 codes."""
    from diffusers import VQModel

    n = len(channels)
    return VQModel(
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=channels,
        latent_channels=LATENT,
        num_vq_embeddings=CODES,
        norm_num_groups=8,
        sample_size=64 // PATCH,
        lookup_from_codebook=True,  # decode() takes codes
    )


def build_lm(words: int, width: int = WIDTH):
    """OPTForCausalLM over `words` words and the codes behind them."""
    return tiny_opt(words + CODES, width, LAYERS)


class Dalle(Member):
    """The picture language `vq`, the model `lm` of texts and codes, and CLIP to choose by."""

    task = DRAW
    stages = (
        Stage("vq", ("vq.",), share=0.28, lr=2e-3, average=0.995),
        Stage("lm", ("lm.",), share=0.72, average=0.999),
    )

    def __init__(self, vq, lm, backbones):
        super().__init__()
        self.vq, self.lm, self.backbones = vq, lm, backbones
        self.words = len(backbones.tokenizer)  # code c is token words + c

    # ---- pictures and codes ----

    @torch.no_grad()
    def codes(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, 64, 64) in 0..1 as codes (B, S), row by row."""
        latents = self.vq.encode(F.pixel_unshuffle(pictures * 2 - 1, PATCH)).latents
        return self.vq.quantize(latents)[2][2].view(len(pictures), -1)

    @torch.no_grad()
    def pictures(self, codes: Tensor) -> Tensor:
        """Codes (B, S) as pictures (B, 3, 64, 64) in 0..1."""
        shape = (len(codes), GRID, GRID, LATENT)
        drawn = self.vq.decode(codes.flatten(), force_not_quantize=True, shape=shape).sample
        return (F.pixel_shuffle(drawn, PATCH) / 2 + 0.5).clamp(0, 1)

    # ---- texts and codes ----

    def read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Texts as token ids, their mask and positions, (B, T) each; the last token is BEGIN.

        A code has the position of its place in the picture, whatever the text's length; texts
        stand behind them.
        """
        tokenizer = self.backbones.tokenizer
        room = POSITIONS - GRID**2 - 1
        rows = tokenizer(list(texts), truncation=True, max_length=room)["input_ids"]
        longest, pad = max(map(len, rows)), tokenizer.pad_token_id
        begin = tokenizer.convert_tokens_to_ids(BEGIN)
        ids = torch.tensor([row + [pad] * (longest - len(row)) + [begin] for row in rows])
        ids = ids.to(self.device)
        mask = (ids != pad).long()
        return ids, mask, GRID**2 + mask.cumsum(1) - 1  # padding, which nothing reads, counts not

    def lm_loss(self, texts: Sequence[str], codes: Tensor) -> Tensor:
        """Next-token loss of texts and codes (B, S), DALL-E's weighted mean of the two."""
        ids, mask, places = self.read(texts)
        codes = codes.to(ids.device)
        where = torch.arange(codes.shape[1], device=ids.device).expand_as(codes)
        logits = self.lm(
            input_ids=torch.cat([ids, codes + self.words], 1),
            attention_mask=torch.cat([mask, torch.ones_like(codes)], 1),
            position_ids=torch.cat([places, where], 1),
        ).logits.float()  # (B, T+S, V)
        t = ids.shape[1] - 1  # of BEGIN, which the first code follows
        words = ids[:, 1:t].masked_fill(mask[:, 1:t] == 0, -100)
        text = F.cross_entropy(logits[:, : t - 1].transpose(1, 2), words)
        picture = F.cross_entropy(logits[:, t:-1].transpose(1, 2), codes + self.words)
        return TEXT_SHARE * text + (1 - TEXT_SHARE) * picture

    @torch.no_grad()
    def sample(
        self, texts, generators, temperature: float = 1.0,
        watch: Callable[[Tensor], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Codes (B, S) for the texts, one after the other, each drawn by chance.

        generators: one a text. watch: is shown the codes so far (B, s).
        """
        ids, mask, places = self.read(texts)
        cache, codes = None, ids[:, :0]  # (B, 0)
        for s in range(GRID**2):
            out = self.lm(
                input_ids=ids, attention_mask=mask, position_ids=places,
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            chances = (out.logits[:, -1, self.words :].float() / temperature).softmax(-1).cpu()
            pairs = zip(chances, generators, strict=True)
            code = torch.stack([torch.multinomial(row, 1, generator=g) for row, g in pairs])
            codes = torch.cat([codes, code.to(codes)], 1)
            ids, cache, places = codes[:, -1:] + self.words, out.past_key_values, ids[:, :1] * 0 + s
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            if watch:
                watch(codes)
        return codes

    def draw(self, prompts, seeds, candidates: int = CANDIDATES, **sampling) -> Tensor:
        """One picture a prompt, (B, 3, 64, 64) in 0..1: of its candidates the nearest by CLIP."""
        texts, drawn, scores = joined(prompts), [], []
        for number in range(candidates):
            noise = [torch.Generator().manual_seed(hash_seed(int(seed), number)) for seed in seeds]
            drawn.append(self.pictures(self.sample(texts, noise, **sampling)))
            scores.append(self.fits(texts, drawn[-1]))  # (B,)
        best = torch.stack(scores).argmax(0)  # (B,)
        return torch.stack(drawn)[best, torch.arange(len(best))]

    def fits(self, texts, pictures: Tensor) -> Tensor:
        """CLIP's cosine of each text with its picture, (B,)."""
        seen = Judge(self.backbones, ()).features(pictures)
        return F.cosine_similarity(seen, read_texts(self.backbones, texts).vectors, dim=-1)

    # ---- training ----

    def begin(self, stage: Stage, work_dir) -> None:
        """The language model learns from the codes of all training pictures."""
        super().begin(stage, work_dir)
        if stage.name == "lm":
            path = work_dir / f"dalle-codes-{weights_sha256(self.vq)[:16]}.pt"
            if not path.exists():
                every = range(0, len(self.pairs.pictures), 64)
                pixels = (signed_pixels(self.pairs.pictures[i : i + 64]) for i in every)
                codes = [self.codes(x.to(self.device) / 2 + 0.5).cpu() for x in pixels]
                write_tensors(path, torch.cat(codes))
            self.all_codes = read_tensors(path)  # (N, S)

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """Of the picture language, then of texts and codes."""
        index = self.pairs.draw(generator)
        if self.stage.name == "lm":
            return self.lm_loss(self.pairs.captions(index, step), self.all_codes[index])
        x = signed_pixels(self.pairs.pictures[index]).to(self.device)
        x = F.pixel_unshuffle(x, PATCH)
        latents = self.vq.encode(x).latents
        if step % RESTART == 0 and step < self.steps(self.stage) // 2:
            revive(self.vq.quantize, latents, generator)
        out = self.vq.decode(latents)
        return F.l1_loss(out.sample, x) + F.mse_loss(out.sample, x) + out.commit_loss


@torch.no_grad()
def revive(quantize, latents: Tensor, generator: torch.Generator) -> None:
    """Move codes that no latent (B, C, h, w) is nearest to onto random ones of these.

    Codes start as dust around zero, where the encoder would use a few of them for everything.
    """
    dead = torch.ones(quantize.n_e, dtype=torch.bool, device=latents.device)
    dead[quantize(latents)[2][2]] = False
    flat = latents.permute(0, 2, 3, 1).flatten(0, 2)  # (B * S, C)
    chosen = torch.randint(len(flat), (int(dead.sum()),), generator=generator)
    quantize.embedding.weight[dead] = flat[chosen.to(flat.device)]
