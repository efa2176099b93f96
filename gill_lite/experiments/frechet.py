"""The Fréchet distance of a table's pictures to the true ones, in the space of the mini CLIP.

The paper's ablation has FID, over Inception features of CC3M pictures. It is a number of a whole
set of pictures; its error is bootstrapped over captions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from gill_lite.evaluation.metrics import frechet_distance
from gill_lite.report.claims import Statistic
from gill_lite.report.intervals import Interval
from gill_lite.report.numbers import FRECHET

[(METRIC, LABEL)] = FRECHET.items()
RESAMPLES = 100
NORMAL = 1.96  # standard errors to a side of a 95 % interval

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
        self.known: dict[tuple[str, str], np.ndarray] = {}

    def distances(self, method: str, context: str) -> np.ndarray:
        """Mean over seeds: of all captions first, then of each resample, (1 + RESAMPLES,)."""
        if (method, context) not in self.known:
            seeds = [c for c in self.features if c[:2] == (method, context)]
            everything = np.arange(len(self.true))
            self.known[method, context] = np.array([
                np.mean([frechet_distance(self.features[cell][chosen], self.true[chosen])
                         for cell in seeds])
                for chosen in tqdm([everything, *self.resamples], desc=f"bootstrap {method}")
            ])  # fmt: skip
        return self.known[method, context]

    def interval(self, terms: Sequence[tuple[int, str, str]]) -> Interval:
        """A signed sum of cells, plus and minus 1.96 bootstrap standard errors.

        The distance of a resample is larger than that of the set, since it holds fewer different
        pictures; a standard error, unlike percentiles, is not moved by that.
        """
        cells = {(method, context) for _, method, context in terms}
        if not cells <= {cell[:2] for cell in self.features}:
            return Interval(None, None, None, 0, "no such cell")
        signed = [sign * self.distances(method, context) for sign, method, context in terms]
        total = np.sum(signed, axis=0)
        mean, error = float(total[0]), float(total[1:].std(ddof=1))
        return Interval(mean, mean - NORMAL * error, mean + NORMAL * error, len(self.true))

    def of_statistic(self, statistic: Statistic) -> Interval:
        """What decides a claim about this metric."""
        return self.interval(statistic.terms)

    def intervals(self) -> dict[tuple[str, str], Interval]:
        """Of each (method, context), for `numbers.result_rows`."""
        cells = dict.fromkeys(cell[:2] for cell in self.features)
        return {cell: self.interval([(1, *cell)]) for cell in cells}
