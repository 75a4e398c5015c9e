"""A user's vocabulary: the shipped form, read strictly, with errors that name the place and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from r4t.catalog.queries import generate_queries
from r4t.catalog.vocabulary import FAMILIES, MAX_BYTES, load_vocabulary
from r4t.config import load_config
from r4t.errors import UserError

GARDEN: dict[str, Any] = {
    "nouns": ["garden", "border"],
    "families": {family: [f"{family} {word}" for word in ("calm", "Wild", "small")] for family in FAMILIES},
}


def written(folder: Path, raw: Any) -> str:
    path = folder / "garden.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return str(path)


def without(key: str) -> dict[str, Any]:
    return {**GARDEN, "families": {family: words for family, words in GARDEN["families"].items() if family != key}}


def test_a_file_of_ones_own_gives_queries_of_its_domain(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(written(tmp_path, GARDEN))
    assert vocabulary.modifiers["mood"] == ("mood calm", "mood wild", "mood small")
    queries = generate_queries(vocabulary, 100, seed=0)
    assert len({query.text for query in queries}) == 100
    assert all(query.text.split()[-1] in ("garden", "border") for query in queries)


def test_a_path_in_a_config_is_relative_to_it_and_a_shipped_name_is_not_a_path(tmp_path: Path) -> None:
    written(tmp_path, GARDEN)
    config = tmp_path / "c.yaml"
    config.write_text("data: {families: garden.yaml}\n")
    assert load_config(config).data.families == str(tmp_path / "garden.yaml")
    assert load_config(config, ["data.families=music"]).data.families == "music"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("a: [", "not valid YAML"),
        ("!!python/object:os.system {}", "not valid YAML"),
        ("day: 2001-99-99", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("- x", "not a list"),
        ({"families": GARDEN["families"]}, "no key nouns"),
        ({"nouns": ["x"]}, "no key families"),
        ({**GARDEN, "noun": []}, "unknown key 'noun' .did you mean 'nouns'"),
        ({**GARDEN, "families": ["mood"]}, "'families' must map"),
        (without("mood"), "no family mood"),
        ({**GARDEN, "families": {**GARDEN["families"], "sesson": ["x"]}}, "'sesson' .did you mean 'season'"),
        ({**GARDEN, "nouns": []}, "'nouns' must be a list of one or more"),
        ({**GARDEN, "nouns": "garden"}, "'nouns' must be a list"),
        ({**GARDEN, "nouns": [True]}, "'nouns' holds True.* in quotes"),
        ({**GARDEN, "nouns": [" "]}, "'nouns' holds ' '"),
        ({**GARDEN, "nouns": ["a b c d e f"]}, "6 words at most"),
        ({**GARDEN, "nouns": [f"n{i}" for i in range(6000)]}, "more than 1,000,000 queries"),
        ("#" * (MAX_BYTES + 1), "larger than 1 MiB"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_says_where_and_what_to_do(tmp_path: Path, raw: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)garden\.yaml.*{message}"):
        load_vocabulary(written(tmp_path, raw))


def test_a_misspelt_name_suggests_the_shipped_one() -> None:
    with pytest.raises(UserError, match=r"did you mean 'fashion'.*food, fashion, music or the path"):
        load_vocabulary("fasion")


def test_nested_aliases_cost_neither_time_nor_a_long_message(tmp_path: Path) -> None:
    nouns = "nouns:\n- &b0 [x, x]\n" + "".join(f"- &b{i} [*b{i - 1}, *b{i - 1}, *b{i - 1}]\n" for i in range(1, 40))
    families = "families:\n" + "".join(f"  {family}: [*b39]\n" for family in FAMILIES)
    with pytest.raises(UserError, match=r"data\.families.* aliases unfold to more than"):
        load_vocabulary(written(tmp_path, nouns + families))
