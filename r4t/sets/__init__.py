"""Training sets of the retriever: how they are composed, stored, read, and how generated sets become items."""

from r4t.sets.decode import keep_rows
from r4t.sets.reader import TargetSets, load_targets
from r4t.sets.store import ShardColumns, read_shard, shard_problem, write_shard
from r4t.sets.stream import SetStream
from r4t.sets.tables import open_tables
from r4t.sets.targets import check_rows, compose_rows, filler_order
from r4t.sets.torch_data import TorchSets, torch_dataset

__all__ = [
    "SetStream",
    "ShardColumns",
    "TargetSets",
    "TorchSets",
    "check_rows",
    "compose_rows",
    "filler_order",
    "keep_rows",
    "load_targets",
    "open_tables",
    "read_shard",
    "shard_problem",
    "torch_dataset",
    "write_shard",
]
