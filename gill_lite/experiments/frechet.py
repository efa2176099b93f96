"""The Fréchet distance of a table's pictures to the true ones, in the space of the mini CLIP.

The paper's ablation has FID, over Inception features of CC3M pictures. It is a number of a whole
set of pictures; its error is bootstrapped over captions and over the seeds of the joints.
"""

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from gill_lite.evaluation.metrics import frechet_distance
from gill_lite.report.claims import NOTHING, Bound
from gill_lite.report.intervals import Interval, Part, Resampled, resample, resampled_interval
from gill_lite.report.numbers import FRECHET
from gill_lite.report.scores import Terms
from gill_lite.training.recipes import RECIPES

[(METRIC, LABEL)] = FRECHET.items()
RESAMPLES = 100

Cell = tuple[str, str, int]  # method, context, seed


def cell_features(evaluation, progress: bool | None = None) -> tuple[dict[Cell, Tensor], Tensor]:
    """CLIP's features (N, P) of each cell's pictures, and of the true ones, in one order.

    Pictures that the evaluation has drawn come from its cache.
    """
    scorer, features = evaluation.scorer, {}
    cells = evaluation.table.cells(evaluation.seeds)
    for cell in tqdm(cells, desc="features", disable=None if progress is None else not progress):
        items, size = evaluation.items([cell]), evaluation.batch_size
        parts = [scorer.judge.features(scorer.draw(items[i : i + size]))
                 for i in range(0, len(items), size)]  # fmt: skip
        features[cell] = torch.cat(parts)
    true = [scorer.judge.features([scorer.truth(e)])[0] for e in evaluation.dataset.examples]
    return features, torch.stack(true)


class Frechet:
    """Distances of a table's cells, and differences between its methods, with intervals."""

    def __init__(self, features: dict[Cell, Tensor], true: Tensor):
        self.features, self.true = features, true
        draw = np.random.default_rng(0)
        self.resamples = [draw.integers(len(true), size=len(true)) for _ in range(RESAMPLES)]
        self.known: dict[tuple[str, str], Part] = {}

    def distances(self, method: str, context: str) -> Part:
        """With each seed, (J,): of all captions, and of each resample of them, (RESAMPLES, J)."""
        if (method, context) not in self.known:
            seeds = [c for c in self.features if c[:2] == (method, context)]
            everything = np.arange(len(self.true))
            found = np.array([
                [frechet_distance(self.features[cell][chosen], self.true[chosen]) for cell in seeds]
                for chosen in tqdm([everything, *self.resamples], desc=f"bootstrap {method}")
            ])  # fmt: skip
            self.known[method, context] = Part(found[0], found[1:])
        return self.known[method, context]

    def resampled(self, terms: Terms) -> Resampled | None:
        """A signed sum of cells, as it is and in the resamples; None where it was not drawn."""
        terms = list(terms)
        if not {term[1:] for term in terms} <= {cell[:2] for cell in self.features}:
            return None
        parts: dict[str, Part] = {}
        for sign, method, context in terms:
            signed = [sign * values for values in self.distances(method, context)]
            old = parts.get(method, (0, 0))
            parts[method] = Part(signed[0] + old[0], signed[1] + old[1])
        return resample(parts, len(self.true), RECIPES)

    def interval(self, terms: Terms) -> Interval:
        """A signed sum of cells with an interval over captions and seeds of the joints.

        The distance of a resample is larger than that of the set, since it holds fewer different
        pictures; a standard error, unlike percentiles, is not moved by that.
        """
        found = self.resampled(terms)
        return resampled_interval(found) if found else NOTHING

    def of_bound(self, bound: Bound) -> Interval:
        """What decides a claim about this metric."""
        return bound.share(self.resampled) if bound.per else self.interval(bound.terms)

    def intervals(self) -> dict[tuple[str, str], Interval]:
        """Of each (method, context), for `numbers.result_rows`."""
        cells = dict.fromkeys(cell[:2] for cell in self.features)
        return {cell: self.interval([(1, *cell)]) for cell in cells}
