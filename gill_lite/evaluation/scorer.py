"""Draw and score: the one path from a work item to its scores, for every table."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from gill_lite.answering.drawing import example_seed, from_pil
from gill_lite.datasets.images import open_image
from gill_lite.errors import GillError
from gill_lite.evaluation.cache import SampleCache
from gill_lite.evaluation.drawers import Drawer, Models
from gill_lite.evaluation.metrics import Judge, clip_similarity
from gill_lite.evaluation.protocol import CORRECTED, Protocol
from gill_lite.evaluation.run import WorkItem
from gill_lite.evaluation.tables import Table
from gill_lite.evaluation.tasks import Dataset

DIGITS = 6  # of a kept score


class Read(NamedTuple):
    """A batch whose files are open."""

    items: list[WorkItem]
    prompts: list  # see `Drawer.read`
    real: list[Tensor]  # the true pictures (3, H, W), as large as they are


class Scorer:
    """Scores batches of work items, which share a cell (method, context, seed)."""

    def __init__(
        self, dataset: Dataset, models: Models, table: Table, protocol: Protocol = CORRECTED,
        run_seed: int = 0, cache: SampleCache | None = None,
    ):  # fmt: skip
        """cache: None draws every picture anew. Raises GillError where nothing can be measured."""
        self.dataset, self.task, self.models = dataset, dataset.task, models
        self.contexts = {context.name: context for context in table.all_contexts}
        self.metrics = tuple(
            n for n in table.metrics if n != "attribute_accuracy" or dataset.scenes
        )
        if not self.metrics:
            raise GillError("attribute accuracy needs the mini world's scenes; name another metric")
        self.judge = Judge(next(iter(models.values())).responder.backbones, self.metrics)
        self.protocol, self.run_seed, self.cache = protocol, run_seed, cache
        self.examples = dataset.by_id
        self.owners = _owners(dataset, protocol)
        self.place = {example_id: i for i, example_id in enumerate(dataset.ids)}
        self.streams: dict[Drawer, NoiseStream] = {}
        self.known_features: dict[str, Tensor] = {}

    def __call__(self, items: list[WorkItem]) -> list[dict]:
        """Scores of the items."""
        return self.score(items, self.draw(items))

    def stream(self, batches: Iterable[list[WorkItem]]) -> Iterator[list[dict]]:
        """Scores of each batch, in order: while one is drawn, the next one's files are read and
        the last one scored, each in a thread, so that a GPU does not wait for the host.

        Batches are taken in the reading thread; a batch may be empty.
        """
        batches, scored = iter(batches), None
        with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as scoring:
            coming = reading.submit(self._read_next, batches)
            try:
                while batch := coming.result():
                    coming = reading.submit(self._read_next, batches)
                    pictures = self.draw(batch.items, batch.prompts) if batch.items else None
                    if scored:
                        yield scored.result()
                    scored = scoring.submit(self.score, batch.items, pictures, batch.real)
            except (Exception, KeyboardInterrupt):
                if scored:
                    yield scored.result()  # what was drawn before is not lost
                raise
            if scored:
                yield scored.result()

    def _read_next(self, batches: Iterator[list[WorkItem]]) -> Read | None:
        """The next batch with what is read of it, None behind the last."""
        for items in batches:
            real = [self.truth(self.examples[item.example_id]) for item in items]
            return Read(items, self.read(items) if items else [], real)
        return None

    # ---- drawing -------------------------------------------------------------------------

    def read(self, items: list[WorkItem]) -> list:
        """What the model is told of the items, see `Drawer.read`."""
        method, context, seed = items[0].cell
        examples = [self.examples[self.owners[item.example_id]] for item in items]
        return self.models[method, seed].read(self.task, examples, self.contexts[context])

    @torch.no_grad()
    def draw(self, items: list[WorkItem], prompts: list | None = None) -> Tensor:
        """The pictures (B, 3, H, W) in 0..1 that the items are scored with.

        prompts: of the items, if they were read already.
        """
        method, _, seed = items[0].cell
        drawer = self.models[method, seed]
        conditions = drawer.encode(self.read(items) if prompts is None else prompts)
        generators = [self.generator(drawer, self.owners[item.example_id]) for item in items]
        return drawer.pictures(conditions, generators, self.cache)

    def generator(self, drawer: Drawer, example_id: str) -> torch.Generator:
        """The noise of an example's picture, by the protocol."""
        if not self.protocol.one_generator:
            seed = example_seed(self.run_seed, example_id)
            return torch.Generator().manual_seed(seed)
        stream = self.streams.setdefault(drawer, NoiseStream(drawer, self.run_seed))
        return stream.at(self.place[example_id])

    # ---- scoring -------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, items: list[WorkItem], pictures: Tensor, real=None) -> list[dict]:
        """The metrics of each item's picture against its example's true one.

        real: the true pictures, if they were read already.
        """
        if not items:
            return []
        examples = [self.examples[item.example_id] for item in items]
        real = [self.truth(example) for example in examples] if real is None else real
        columns = {}
        if "clip_similarity" in self.metrics:
            true = self._true_features(examples, real)  # (B, P)
            drawn = self.judge.features(pictures)
            columns["clip_similarity"] = clip_similarity(drawn, true)
        if "lpips" in self.metrics and self._pairs_for_lpips():
            columns["lpips"] = self.judge.lpips(pictures, real)
        if "attribute_accuracy" in self.metrics:
            scenes = [self.dataset.scenes[self.task.target(example)[0]] for example in examples]
            right = self.judge.attributes(pictures, scenes)
            columns["attribute_accuracy"] = right.mean
            columns |= {f"right_{name}": hits for name, hits in right.per_attribute.items()}
        rows = [
            {name: round(float(values[i]), DIGITS) for name, values in columns.items()}
            for i in range(len(items))
        ]
        for item, row in zip(items, rows, strict=True):
            if self.owners[item.example_id] != item.example_id:
                row.pop("lpips", None)  # of one file there is one LPIPS
        return rows

    def truth(self, example) -> Tensor:
        """The true picture of an example (3, H, W) in 0..1, as large as it is."""
        return from_pil(open_image(self.task.target(example)[1]))

    def _true_features(self, examples: Sequence, real: list[Tensor]) -> Tensor:
        """CLIP's embeddings of the true pictures (B, P), each computed once."""
        names = [self.task.target(example)[0] for example in examples]
        for name, pixels in zip(names, real, strict=True):
            if name not in self.known_features:
                self.known_features[name] = self.judge.features([pixels])[0]
        return torch.stack([self.known_features[name] for name in names])

    def _pairs_for_lpips(self) -> bool:
        return self.protocol.visdial_lpips or self.task.name != "visdial"


def _owners(dataset: Dataset, protocol: Protocol) -> dict[str, str]:
    """Example id -> id of the example whose picture it is scored with."""
    names = [example.example_id for example in dataset.examples]
    if protocol.output_key == "example":
        return dict(zip(names, names, strict=True))
    names = [name for name in names if not dataset.fault(name)]  # others are not drawn
    targets = [dataset.task.target(dataset.by_id[name])[0] for name in names]
    last = dict(zip(targets, names, strict=True))  # later pictures overwrite earlier ones
    return {name: last[target] for name, target in zip(names, targets, strict=True)}


class NoiseStream:
    """One generator for all pictures, and how it stood before each of them."""

    def __init__(self, drawer: Drawer, seed: int):
        self.drawer = drawer
        self.generator = torch.Generator().manual_seed(seed)
        self.states = [self.generator.get_state()]

    def at(self, place: int) -> torch.Generator:
        """A generator that stands where the one for all does before picture `place`."""
        while len(self.states) <= place:
            self.drawer.noise(self.generator)
            self.states.append(self.generator.get_state())
        own = torch.Generator()
        own.set_state(self.states[place])
        return own
