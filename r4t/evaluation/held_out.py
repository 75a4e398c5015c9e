"""What a network that draws sets retrieves for held-out training queries, scored by the objective while it trains."""

from __future__ import annotations

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.catalog.index import ExactIndex
from r4t.config import Config, Sampler
from r4t.diffusion.denoiser import SetDenoiser
from r4t.diffusion.sampler import SetSampler
from r4t.evaluation.measure import Yardstick, measure
from r4t.methods import Diffusion, QueryBatch
from r4t.types import Ints


class HeldOutSets:
    """Sets of the given queries of the dataset, drawn with one seed and searched exactly."""

    def __init__(self, dataset: Dataset, config: Config, query_rows: Ints) -> None:
        if config.task == "wscr":
            query_rows = query_rows[[len(dataset.queries[row].references) > 0 for row in query_rows]]
        self.config = config
        self.index = ExactIndex(dataset.item_vectors)
        self.queries = QueryBatch.of_rows(dataset, query_rows)
        self.yardstick = Yardstick(
            dataset=dataset, query_rows=query_rows, objective=config.objective, task=config.task
        )  # without a judge: it would have to read every item first

    def score(self, denoiser: SetDenoiser, sampler: Sampler) -> dict[str, float]:
        """Means over the queries of the reward and of every term that applies, as `held_out/<term>`."""
        fanout = self.config.fanout
        method = Diffusion("held_out", SetSampler(denoiser, sampler), self.index, fanout.k, fanout.n)
        values = measure(self.yardstick, method.retrieve(self.queries, self.config.seed), self.config.seed)
        means = {name: float(np.nanmean(v)) for name, v in values.items() if not np.isnan(v).all()}
        return {f"held_out/{name}": mean for name, mean in means.items()}
