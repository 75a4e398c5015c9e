"""The three rubrics of the paper's judge (App. B.1, App. E): what is asked, and how an answer is read.

A prompt holds the query and the items, and never the name of a method. Alignment shows no sub-queries, as the paper's
template does; groundedness shows no query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from r4t.catalog.answers import Unusable, excerpt, json_of

SCALE = "1 = poor, 2 = fair, 3 = good (the result one would expect), 4 = very good, 5 = excellent"
SYSTEM = (
    "You judge results of a retrieval system. Be strict and consistent: judge by the criteria given and by nothing"
    " else. The items stand in random order. Answer with one JSON object and no other text."
)
LONGEST = 300  # characters of a text in an answer

DIVERSITY = """How diverse is this set of items, as a result for the query? Judge meaning, not wording.
Scale: {scale}.
1: all items express one and the same idea
2: two or three ideas, mostly redundant
3: several aspects of the query, with tolerable overlap
4: mostly distinct items that cover the facets of the query well
5: comprehensive and creative, with minimal redundancy

Query: {query}
Items:
{items}

Answer with the JSON object {{"score": 1-5, "reasoning": "one or two sentences", "categories_observed": ["..."]}}."""

ALIGNMENT = """How well does this set of items, as a whole, answer the query?
Scale: {scale}.
1: the set has nothing to do with the query
2: a few items are related, the set misses the point
3: clearly related, most items are on topic
4: every item is related and the intent of the query is captured
5: the full meaning of the query is captured

Query: {query}
Items:
{items}

Answer with the JSON object {{"score": 1-5, "reasoning": "one or two sentences", "relevant_items_count": 0-{count}, \
"total_items_count": {count}}}."""

GROUNDEDNESS = """Each line pairs a search text with the item that was found for it. Is the item an example of what its
own search text asks for? Judge each pair by itself, and no other purpose that the search may have had.
Scale: {scale}.
1: unrelated
2: the topic is right, the specific concept is missing
3: a clear and reasonable example
4: a clear and specific example
5: a textbook example

Pairs:
{pairs}

Answer with the JSON object {{"per_subquery_scores": [{{"subquery": "...", "score": 1-5, "reasoning": "one sentence"}}],
"average_score": 1-5}}, one entry for each of the {count} pairs, in their order."""

Json = dict[str, Any]
_SCORE: Json = {"type": "integer", "enum": [1, 2, 3, 4, 5]}
_TEXT: Json = {"type": "string", "maxLength": LONGEST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One answer: a score from 1 to 5 and why."""

    score: float
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rubric:
    """One dimension: `ask(query, items, subqueries)` gives the prompt, `read(answer, items)` the verdict.

    `read` raises `Unusable` for anything but the JSON asked for. `schema(items)` describes that JSON to a server that
    can hold a model to it.
    """

    ask: Callable[[str, Sequence[str], Sequence[str]], str]
    read: Callable[[str, int], Verdict]
    schema: Callable[[int], Json]
    needs_subqueries: bool = False


def _of_set(template: str) -> Callable[[str, Sequence[str], Sequence[str]], str]:
    def ask(query: str, items: Sequence[str], _: Sequence[str]) -> str:
        return template.format(scale=SCALE, query=query, items=_numbered(items), count=len(items))

    return ask


def _of_pairs(_: str, items: Sequence[str], subqueries: Sequence[str]) -> str:
    pairs = _numbered([f"{text} -> {item}" for text, item in zip(subqueries, items, strict=True)])
    return GROUNDEDNESS.format(scale=SCALE, pairs=pairs, count=len(items))


def _read_diversity(answer: str, _: int) -> Verdict:
    found = _object(answer)
    if not isinstance(found.get("categories_observed"), list):
        raise Unusable(f"no list categories_observed: {excerpt(answer)}")
    return Verdict(score=_score(found, answer), reasoning=_reasoning(found, answer))


def _read_alignment(answer: str, count: int) -> Verdict:
    found = _object(answer)
    relevant, total = found.get("relevant_items_count"), found.get("total_items_count")
    if not _is_count(relevant, count) or total != count:
        raise Unusable(f"counts that do not fit {count} items: {excerpt(answer)}")
    return Verdict(score=_score(found, answer), reasoning=_reasoning(found, answer))


def _read_groundedness(answer: str, count: int) -> Verdict:
    """The mean of the pairs' scores; the model's own average is not trusted to be one."""
    pairs = _object(answer).get("per_subquery_scores")
    if not isinstance(pairs, list) or len(pairs) != count or not all(isinstance(pair, dict) for pair in pairs):
        raise Unusable(f"not {count} scores: {excerpt(answer)}")
    scores = [_score(pair, answer) for pair in pairs]
    return Verdict(score=sum(scores) / count, reasoning=" ".join(_reasoning(pair, answer) for pair in pairs))


def _schema(properties: Callable[[int], Json]) -> Callable[[int], Json]:
    def schema(count: int) -> Json:
        fields = properties(count)
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}

    return schema


def _pair_schema(count: int) -> Json:
    pair = _schema(lambda _: {"subquery": _TEXT, "score": _SCORE, "reasoning": _TEXT})(count)
    scores = {"type": "array", "items": pair, "minItems": count, "maxItems": count}
    return {"per_subquery_scores": scores, "average_score": _SCORE}


RUBRICS = {
    "diversity": Rubric(
        ask=_of_set(DIVERSITY),
        read=_read_diversity,
        schema=_schema(
            lambda count: {
                "score": _SCORE,
                "reasoning": _TEXT,
                "categories_observed": {"type": "array", "items": _TEXT, "maxItems": count},
            }
        ),
    ),
    "alignment": Rubric(
        ask=_of_set(ALIGNMENT),
        read=_read_alignment,
        schema=_schema(
            lambda count: {
                "score": _SCORE,
                "reasoning": _TEXT,
                "relevant_items_count": {"type": "integer", "enum": list(range(count + 1))},
                "total_items_count": {"type": "integer", "enum": [count]},
            }
        ),
    ),
    "groundedness": Rubric(ask=_of_pairs, read=_read_groundedness, schema=_schema(_pair_schema), needs_subqueries=True),
}


def _numbered(lines: Sequence[str]) -> str:
    """One line per text; a text that breaks its line could pass for another item."""
    return "\n".join(f"{number}. {' '.join(line.split())}" for number, line in enumerate(lines, 1))


def _object(answer: str) -> Json:
    found = json_of(answer)
    if not isinstance(found, dict):
        raise Unusable(f"no JSON object: {excerpt(answer)}")
    return found


def _score(found: Json, answer: str) -> int:
    score: Any = found.get("score")
    if not _is_count(score, 5) or score == 0:
        raise Unusable(f"no score from 1 to 5: {excerpt(answer)}")
    return int(score)


def _reasoning(found: Json, answer: str) -> str:
    reasoning = found.get("reasoning")
    if not isinstance(reasoning, str) or not reasoning.strip():
        raise Unusable(f"a score without reasoning: {excerpt(answer)}")
    return reasoning.strip()


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
