"""Retrieval methods behind one protocol."""

from r4t.methods.base import QueryBatch, SetRetriever
from r4t.methods.baselines import NoFanout, Popular, Random, popularity
from r4t.methods.compiled import Diffusion
from r4t.methods.feedback import Rocchio
from r4t.methods.language import BestOfN, FanoutSearch, Generate, LanguageFanout
from r4t.methods.pool import DPP, MMR, Facets, FromPool

__all__ = [
    "DPP",
    "MMR",
    "BestOfN",
    "Diffusion",
    "Facets",
    "FanoutSearch",
    "FromPool",
    "Generate",
    "LanguageFanout",
    "NoFanout",
    "Popular",
    "QueryBatch",
    "Random",
    "Rocchio",
    "SetRetriever",
    "popularity",
]
