"""A table over tiny random models: everything real but the sizes, a second to make."""

import dataclasses

import torch

from gill_lite.answering.respond import Responder
from gill_lite.evaluation.drawers import GillDrawer, StableDiffusion
from gill_lite.evaluation.scorer import Scorer
from gill_lite.evaluation.tables import Table
from gill_lite.evaluation.tasks import of_world
from gill_lite.model.checkpoint import save_joints
from gill_lite.model.gill import build_gill
from gill_lite.world.export import write_captions, write_visdial, write_vist
from tests.helpers import tiny_backbones


class Squares(torch.nn.Module):
    """In the place of LPIPS: the mean squared difference."""

    def forward(self, a, b):
        return ((a - b) ** 2).mean(dim=(1, 2, 3), keepdim=True)


def backbones(**changes):
    """Tiny backbones whose LM has room for ten rounds."""
    tiny = tiny_backbones.backbones()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        tiny.lm = tiny_backbones.language_model(len(tiny.tokenizer), positions=256)
    tiny.profile = tiny_backbones.profile(image_size=16, num_inference_steps=2, **changes)
    return tiny


def models(seeds=(0,), **changes) -> dict:
    """Drawers by (method, seed)."""
    tiny = backbones(**changes)
    drawers = {}
    for seed in seeds:
        responder = Responder(tiny, build_gill(tiny.profile, tiny, seed=seed))
        drawers.setdefault(("sd", 0), StableDiffusion(responder))
        drawers["gill", seed] = GillDrawer(responder)
    return drawers


def table_of(task, **changes) -> Table:
    """A table of all contexts of a task, with what tiny backbones can measure."""
    return Table("x", "x", task, "x", tuple(task.contexts.values()),
                 metrics=("clip_similarity", "lpips"), **changes)  # fmt: skip


def scorer(task, folder, count=4, examples=None, drawers=None, table=None, **options) -> Scorer:
    """A scorer of the mini world's first examples; `examples` changes the list."""
    dataset = dataclasses.replace(of_world(task, folder, count), scenes={})
    if examples is not None:
        taken = examples(dataset.examples)
        ids = [example.example_id for example in taken]
        dataset = dataclasses.replace(dataset, examples=taken, ids=ids)
    made = Scorer(dataset, drawers or models(), table or table_of(task), **options)
    made.judge.perceptual = Squares()
    return made


def sharing_their_picture(stories: list) -> list:
    """The stories, the first of which now ends in the same picture as the last."""
    first, last = stories[0], stories[-1]
    first = dataclasses.replace(
        first,
        photo_ids=(*first.photo_ids[:-1], last.photo_ids[-1]),
        image_paths=(*first.image_paths[:-1], last.image_paths[-1]),
    )
    return [first, *stories[1:]]


def save_paper(folder, seeds=(0,)) -> list[str]:
    """Write tiny models as the paper profile reads them; the options that name them."""
    tiny = backbones()
    models = tiny_backbones.save(tiny, folder)
    joints = []
    for seed in seeds:
        gill = build_gill(tiny.profile, tiny, seed=seed)
        joints.append(str(save_joints(gill, folder / f"joints-{seed}", {"made": "at random"})))
    named = [f"--{name}={path}" for name, path in models.items()]
    quick = ["--num-inference-steps=3", "--metrics=clip_similarity"]
    return ["--profile=paper", *named, *quick, "--joints", *joints]


def photographs(folder, count=5, missing=1) -> list[str]:
    """Official files of stories and dialogues about drawn photographs, `missing` of them gone."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)

    def photo(i):
        return Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8))

    stories = [(str(s), [(f"{s}{n}", f"a red ball {n} .", photo(n)) for n in range(5)])
               for s in range(count)]  # fmt: skip
    write_vist(folder / "vist.json", folder / "stories", stories)
    rounds = [("is it a ball", "a blue ball"), ("is it by night", "by day")] * 5
    dialogues = [(n, "a ball", rounds, photo(n)) for n in range(count)]
    write_visdial(folder / "visdial.json", folder / "dialogues", dialogues)
    write_captions(folder / "cc3m.tsv", folder / "pictures",
                   [(f"a ball {n} .", f"{n}.png", photo(n)) for n in range(count)])  # fmt: skip
    for i in range(missing):
        (folder / "stories" / f"{i}4.png").unlink()
        (folder / "dialogues" / f"VisualDialog_val2018_{i:012d}.png").unlink()
    return [
        f"--vist-json={folder / 'vist.json'}", f"--vist-images={folder / 'stories'}",
        f"--visdial-json={folder / 'visdial.json'}", f"--visdial-images={folder / 'dialogues'}",
        f"--captions-tsv={folder / 'cc3m.tsv'}", f"--captions-images={folder / 'pictures'}",
    ]  # fmt: skip
