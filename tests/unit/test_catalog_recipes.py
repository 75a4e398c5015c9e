"""The embedded recipes: normalised ingredients, unique items, splits by dish."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.catalog.recipes import (
    Ingredient,
    Recipe,
    canonical_ingredients,
    clean_ingredient,
    ingredient_sets,
    load_recipes,
    main_ingredients,
    recipe_items,
    singular,
)
from r4t.catalog.source import compose, normalise, split_of


def recipe(name: str, *ingredients: tuple[str, float], meal: str = "lunch", recipe_id: str = "r") -> Recipe:
    parts = tuple(Ingredient(*pair) for pair in ingredients)
    return Recipe(recipe_id=recipe_id, name=name, meal=meal, ingredients=parts, facts={})


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Yogurt (2–5%)", "yogurt"),
        ("10% cream", "cream"),
        ("Honey or syrup", "honey"),
        ("water/broth", "water"),
        ("Cheese  (30%) ", "cheese"),
        ("orange", "orange"),
        ("(optional)", "(optional)"),
    ],
)
def test_an_ingredient_is_cleaned_of_remarks_and_alternatives(raw: str, clean: str) -> None:
    assert clean_ingredient(raw) == clean


@pytest.mark.parametrize(
    ("plural", "one"),
    [("tomatoes", "tomato"), ("cherries", "cherry"), ("grape leaves", "grape leaf"), ("eggs", "egg"),
     ("olives", "olive"), ("radishes", "radish"), ("chicken breasts", "chicken breast")],
)  # fmt: skip
def test_plural_and_singular_meet(plural: str, one: str) -> None:
    assert singular(plural) == singular(one)


def test_the_commonest_spelling_names_the_ingredient() -> None:
    names = canonical_ingredients(["Eggs", "egg", "Egg (boiled)", "oats", "Oats", "molasses", "watercress"])
    assert names == {
        "Eggs": "egg", "egg": "egg", "Egg (boiled)": "egg", "oats": "oats", "Oats": "oats",
        "molasses": "molasses", "watercress": "watercress",
    }  # fmt: skip


@given(st.text(max_size=30))
def test_normalise_is_idempotent_and_blind_to_case_and_spaces(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(f"  {text}\t") == once
    assert "  " not in once


@given(st.text(min_size=1, max_size=30))
def test_cleaning_an_ingredient_leaves_something_unless_it_was_blank(text: str) -> None:
    assert bool(clean_ingredient(text)) == bool(text.strip())


@given(st.lists(st.text(alphabet="abes (5%)", min_size=1, max_size=8).filter(str.strip), max_size=20))
def test_canonical_names_are_a_fixed_point(names: list[str]) -> None:
    mapping = canonical_ingredients(names)
    assert set(mapping) == set(names)
    for name, canonical in mapping.items():
        assert singular(clean_ingredient(name)) == singular(canonical)


def test_main_ingredients_are_the_heaviest_that_are_not_seasoning() -> None:
    soup = recipe(
        "Soup", ("salt", 5), ("water", 900), ("leek", 50), ("beef", 300), ("carrot", 80), ("dill", 2), ("pea", 60)
    )
    assert main_ingredients(soup) == ["beef", "carrot", "pea", "leek"]
    assert main_ingredients(recipe("Brine", ("salt", 5), ("water", 900))) == ["water"]


def test_equal_texts_are_one_item_and_equal_ids_are_numbered() -> None:
    stew = recipe("Stew", ("beef", 9), recipe_id="stew")
    items, dropped = recipe_items([stew, stew, recipe("Stew", ("pork", 9), recipe_id="stew")])
    assert [(item.item_id, item.text) for item in items] == [
        ("stew", "Stew, lunch, beef"),
        ("stew--2", "Stew, lunch, pork"),
    ]
    assert dropped == {"recipes whose text repeats another's": 1}


def test_c33_recipes_give_items_with_unique_ids_and_texts_and_a_full_account() -> None:
    recipes, dropped = load_recipes()
    items, more = recipe_items(recipes)
    assert len({item.item_id for item in items}) == len({item.text.lower() for item in items}) == len(items)
    assert len(items) + sum((dropped + more).values()) == 4819
    assert len(items) > 4500
    assert {item.extra["meal"] for item in items} == {"breakfast", "lunch", "dinner", "snack"}
    assert all(item.text.startswith(f"{item.name}, {item.extra['meal']}, ") for item in items)


def test_c34_equal_dishes_never_cross_splits() -> None:
    recipes, _ = load_recipes()
    _, sets = ingredient_sets(recipes, seed=0)
    homes: dict[str, set[str]] = {}
    for s in sets:
        homes.setdefault(normalise(s.title), set()).add(s.split)
    assert all(len(splits) == 1 for splits in homes.values())
    shares = Counter(next(iter(splits)) for splits in homes.values())
    total = len(homes)
    assert 0.78 < shares["train"] / total < 0.82
    assert 0.08 < shares["valid"] / total < 0.12
    assert 0.08 < shares["test"] / total < 0.12


def test_c34_the_split_of_a_dish_depends_on_nothing_but_its_name_and_the_seed() -> None:
    recipes, _ = load_recipes()
    _, everything = ingredient_sets(recipes, seed=5)
    _, part = ingredient_sets(recipes[:500], seed=5)
    assert [s.split for s in part] == [s.split for s in everything[:500]]
    assert split_of("borscht", 5) == split_of("borscht", 5)
    assert len({split_of("borscht", seed) for seed in range(60)}) == 3


def test_no_staple_stays_in_the_ingredient_database() -> None:
    recipes, dropped = load_recipes()
    items, sets = ingredient_sets(recipes, seed=0)
    catalog = compose(items, sets, max_share=0.05, min_size=2, dropped=dropped)
    names = [item.name for item in catalog.items]
    assert "salt" not in names
    assert "egg" not in names
    assert "quinoa" in names
    assert len(names) == len(set(names)) == len({item.item_id for item in catalog.items})
    assert all(len(query.references) >= 2 for query in catalog.queries)
    assert max(row for query in catalog.queries for row in query.references) < len(names)
    assert catalog.dropped["staple items (data.max_item_share)"] == len(items) - len(names)
