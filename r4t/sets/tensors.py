"""The targets themselves, for readers that have neither the items nor the sub-query tables (`sets.write_tensors`)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from r4t.sets.store import ShardColumns, fixed_lists
from r4t.types import Floats


def tensor_table(shard: ShardColumns, query_vectors: Floats, item_vectors: Floats) -> pa.Table:
    """One line per valid answer: its query's vector [d] and its target [L, d], rows in stored order.

    Item rows (OAR) are float32 and bit-equal to the database's, sub-query rows (WSCR) float16 as in the shard's table.
    The target is Arrow's fixed-shape tensor, which is a plain fixed-size list to readers that do not know it.
    """
    valid = np.flatnonzero(shard.valid)
    items = shard.vectors is None
    table = item_vectors if shard.vectors is None else shard.vectors.astype(np.float16)
    targets = table[shard.rows[valid]]
    kind = pa.fixed_shape_tensor(pa.float32() if items else pa.float16(), targets.shape[1:])
    flat = fixed_lists(targets.reshape(len(valid), -1), kind.value_type)
    return pa.table(
        {
            "query_id": pa.array([shard.query_id[row] for row in valid], pa.string()),
            "sample": pa.array(shard.sample[valid], pa.int32()),
            "query_vector": fixed_lists(query_vectors[shard.query[valid]], pa.float32()),
            "target": pa.ExtensionArray.from_storage(kind, flat),
        }
    )
