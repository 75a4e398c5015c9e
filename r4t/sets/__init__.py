"""Training sets of the retriever: how they are composed, stored, read, and how generated sets become items."""

from r4t.sets.decode import keep_rows
from r4t.sets.reader import TargetSets, load_targets
from r4t.sets.store import ShardColumns, read_shard, shard_problem, write_shard
from r4t.sets.targets import check_rows, compose_rows, filler_order

__all__ = [
    "ShardColumns",
    "TargetSets",
    "check_rows",
    "compose_rows",
    "filler_order",
    "keep_rows",
    "load_targets",
    "read_shard",
    "shard_problem",
    "write_shard",
]
