"""A catalogue of any size with real words: recipe names crossed with ingredients, as `items.parquet`.

python -m benchmarks.large_catalogue OUT.parquet [--items 142472]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from r4t.catalog.recipes import load_recipes


def names(items: int) -> list[str]:
    """Distinct texts, "<recipe> with <ingredient>"."""
    recipes, _ = load_recipes()
    dishes = sorted({recipe.name for recipe in recipes})
    ingredients = sorted({part.name for recipe in recipes for part in recipe.ingredients})
    pairs = len(dishes) * len(ingredients)
    if items > pairs:
        raise SystemExit(f"{items} items are wanted, and there are {pairs} pairs of dish and ingredient")
    chosen = np.random.default_rng(0).choice(pairs, size=items, replace=False)
    return [f"{dishes[pair % len(dishes)]} with {ingredients[pair // len(dishes)]}" for pair in chosen.tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--items", type=int, default=142_472)
    a = parser.parse_args()
    texts = names(a.items)
    table = pa.table({"item_id": [f"{i:06d}" for i in range(len(texts))], "text": texts})
    pq.write_table(table, a.out, compression="zstd")
    print(f"{a.out}: {len(texts)} items")


if __name__ == "__main__":
    main()
