"""Queries, titles and recomposed sets that a language model writes behind an endpoint (paper C.1 and C.2)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from r4t.catalog.augment import copy_of, generator, training_sets
from r4t.catalog.endpoint import Client, Question
from r4t.catalog.prompts import (
    OAR_SYSTEM,
    WSCR_SYSTEM,
    oar_prompt,
    read_queries,
    read_subsets,
    read_title,
    subsets_prompt,
    title_prompt,
)
from r4t.catalog.queries import phrases, with_splits
from r4t.catalog.source import Item, ItemSet, normalise
from r4t.catalog.vocabulary import FAMILIES
from r4t.config import Augment
from r4t.errors import UserError
from r4t.types import Query

PER_QUESTION = 100  # queries asked for at a time, at most (paper C.1) ...
AT_LEAST = 10  # ... and at least
ROUNDS = 4  # in which what duplicates and failures cost is asked for again
FAILED = "questions to the endpoint without a usable answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes through `client`, for a catalogue of `domain`. Counts what it leaves out in `dropped`."""

    client: Client
    domain: str
    seed: int
    dropped: Counter[str]

    def queries(self, n: int, taken: Collection[str]) -> list[Query]:
        """`n` distinct broad queries of 2-6 words over the eight families, split 8:1:1 at random.

        None contains a name in `taken` of two words or more. Raises UserError when the model writes too few.
        """
        names = {normalise(name) for name in taken if len(name.split()) > 1}
        texts: dict[str, str] = {}
        for number in range(ROUNDS):
            if len(texts) < n:
                self._add_queries(texts, n - len(texts), number, names)
        if len(texts) < n:
            raise UserError(
                f"the model {self.client.settings.model} wrote {len(texts)} different queries, not {n}:"
                f" set data.n_queries={len(texts)}, raise data.endpoint.temperature, or name another model"
            )
        self.dropped["written queries beyond data.n_queries"] += len(texts) - n
        return with_splits(dict(list(texts.items())[:n]), np.random.default_rng(self.seed))

    def titles(self, sets: Sequence[ItemSet], names: Mapping[str, str]) -> list[ItemSet]:
        """`sets`, the untitled ones with a written title, without those that got none. `names` are items' by id."""
        untitled = [s for s in sets if not s.title.strip()]
        system = WSCR_SYSTEM.format(domain=self.domain)
        questions = [
            Question(system=system, user=title_prompt([names[i] for i in s.item_ids], self.domain), seed=str(self.seed))
            for s in untitled
        ]
        written = iter(self.client.ask(questions, lambda _, text: read_title(text)))
        titled = [s if s.title.strip() else replace(s, title=next(written) or "") for s in sets]
        self.dropped["sets without a title"] += sum(not s.title for s in titled)
        return [s for s in titled if s.title]

    def copies(self, items: Sequence[Item], queries: Sequence[Query], settings: Augment) -> Iterator[Query]:
        """At most `settings.copies` recomposed sets of each training query with references, each with a new query.

        A pool is the set's own items, at most half of it, and random others of the whole catalogue (paper C.2).
        """
        training = training_sets(queries)
        pools = [_random_pool(query, len(items), settings.pool, self.seed) for query in training]
        sizes = [min(settings.size, len(pool)) for pool in pools]
        system = WSCR_SYSTEM.format(domain=self.domain)
        questions = [
            Question(
                system=system,
                user=subsets_prompt([items[row].name for row in pool], settings.copies, size, self.domain),
                seed=str(self.seed),
            )
            for pool, size in zip(pools, sizes, strict=True)
        ]
        answers = self.client.ask(
            questions, lambda i, text: read_subsets(text, len(pools[i]), settings.copies, sizes[i])
        )
        for query, pool, answer in zip(training, pools, answers, strict=True):
            if answer is None:
                self.dropped[FAILED] += 1
                continue
            subsets, unfit = answer
            self.dropped["written sets of the wrong size, with unknown items or an unfit query"] += unfit
            for number, (chosen, text) in enumerate(subsets):
                yield copy_of(query, number, text, [pool[place] for place in chosen])

    def _add_queries(self, texts: dict[str, str], missing: int, number: int, names: set[str]) -> None:
        """Asks each family as often as `missing` queries take, and adds {query: family} to `texts`."""
        laps = math.ceil(missing / (PER_QUESTION * len(FAMILIES)))
        count = max(AT_LEAST, math.ceil(missing / (laps * len(FAMILIES))))
        asked = [(family, lap) for lap in range(laps) for family in FAMILIES]
        questions = [
            Question(
                system=OAR_SYSTEM,
                user=oar_prompt(family, count, self.domain),
                seed=f"{self.seed}:{family}:{number}:{lap}",
            )
            for family, lap in asked
        ]
        answers = self.client.ask(questions, lambda _, text: read_queries(text))
        self.dropped[FAILED] += answers.count(None)
        self.dropped["written queries of too few or too many words"] += sum(a[1] for a in answers if a)
        # One query of each answer in turn, so that families stay balanced where the last ones are cut off.
        for in_turn in zip_longest(*([normalise(text) for text in answer[0]] if answer else [] for answer in answers)):
            for (family, _), text in zip(asked, in_turn, strict=True):
                if text is None:
                    continue
                if text in texts:
                    self.dropped["written queries that repeat another"] += 1
                elif not names.isdisjoint(phrases(text)):
                    self.dropped["written queries that name an item"] += 1
                else:
                    texts[text] = family


def _random_pool(query: Query, n_items: int, size: int, seed: int) -> list[int]:
    """Rows of a pool in random order, so that an item's place says nothing."""
    rng = generator(seed, query.query_id, 0)
    own = rng.permutation(query.references)[: size // 2].tolist()
    drawn = rng.choice(n_items, size=min(size + len(query.references), n_items), replace=False).tolist()
    others = [row for row in drawn if row not in query.references]
    return [int(row) for row in rng.permutation([*own, *others[: size - len(own)]])]
