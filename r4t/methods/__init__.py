"""Retrieval methods behind one protocol."""

from r4t.methods.base import QueryBatch, SetRetriever
from r4t.methods.baselines import MMR, NoFanout, Popular, Random, popularity
from r4t.methods.compiled import Diffusion
from r4t.methods.language import BestOfN, FanoutSearch, Generate, LanguageFanout

__all__ = [
    "MMR",
    "BestOfN",
    "Diffusion",
    "FanoutSearch",
    "Generate",
    "LanguageFanout",
    "NoFanout",
    "Popular",
    "QueryBatch",
    "Random",
    "SetRetriever",
    "popularity",
]
