"""Search over the item database: exact, sharded or approximate, behind one contract (`Index`)."""

from r4t.catalog.index.ann import AnnIndex
from r4t.catalog.index.build import build_index, recall
from r4t.catalog.index.contract import Index, checked_vectors
from r4t.catalog.index.exact import ExactIndex
from r4t.catalog.index.files import load_index, open_index, save_index, write_index
from r4t.catalog.index.sharded import ShardedIndex

__all__ = [
    "AnnIndex",
    "ExactIndex",
    "Index",
    "ShardedIndex",
    "build_index",
    "checked_vectors",
    "load_index",
    "open_index",
    "recall",
    "save_index",
    "write_index",
]
