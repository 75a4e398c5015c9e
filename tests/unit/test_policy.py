"""Tokenizer, credit per token and token batches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from r4t.assemble import assemble
from r4t.batch import supervised_batch
from r4t.catalog.encoders import load_encoder, unit_rows
from r4t.config import Config, Policy, parse_config
from r4t.credit import piece_ends, token_rows
from r4t.errors import UserError
from r4t.fanout import format_answer, parse
from r4t.policy import (
    BLUR,
    MARKERS,
    check_policy,
    create_policy,
    encode_prompt,
    load_tokenizer,
    token_vectors,
    train_tokenizer,
)
from r4t.types import Completion, ScoredBatch

NAMES = ["beef stew with carrots", "apple pie", "crème brûlée", "tomato soup", "green salad", "rye bread"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(NAMES * 5, 400)


@pytest.fixture(scope="module")
def folded() -> PreTrainedTokenizerFast:
    return train_tokenizer(NAMES * 5, 400, fold=True)


@given(st.lists(st.sampled_from([*NAMES, "naïve 寿司 🍣"]), min_size=1, max_size=6))
@settings(max_examples=40)
def test_tokenizer_and_credit_find_every_sub_query(tokenizer: PreTrainedTokenizerFast, names: list[str]) -> None:
    text = format_answer(names)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    rows = token_rows(piece_ends(tokenizer, ids, text), parse(text, 10))
    for row, name in enumerate(names):
        own = tokenizer.decode([t for t, r in zip(ids, rows, strict=True) if r == row])
        assert name in own or own in name
        assert len(own) >= len(name) - 2
    assert rows[0] == -1
    assert rows[-1] == -1


def test_a_folded_word_is_the_same_tokens_in_any_case_and_place(folded: PreTrainedTokenizerFast) -> None:
    for word in ("Beef", "tomato", "RYE", "Brûlée"):
        ids = folded.encode(word)
        for text in (f"Green {word} pie", f"{word} soup", format_answer([word.lower(), "x"]), f"<broad_query>{word}"):
            found = folded.encode(text)
            assert any(found[i : i + len(ids)] == ids for i in range(len(found))), f"{word} in {text}"


@given(st.lists(st.sampled_from([*NAMES, "Naïve 寿司 🍣"]), min_size=1, max_size=6))
@settings(max_examples=40)
def test_a_folded_answer_parses_to_its_lower_case_words(folded: PreTrainedTokenizerFast, names: list[str]) -> None:
    ids = folded.encode(format_answer(names))
    text = folded.decode(ids, skip_special_tokens=True)
    assert parse(text, len(names)).subqueries == tuple(name.lower() for name in names)
    rows = token_rows(piece_ends(folded, ids, text), parse(text, 10))
    for row, name in enumerate(names):
        own = folded.decode([t for t, r in zip(ids, rows, strict=True) if r == row])
        assert own.strip() in name.lower() or name.lower() in own


def test_the_policy_cannot_write_what_breaks_a_json_string(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        if text not in MARKERS:
            assert not set(text) & set('"\\' + "".join(map(chr, range(32)))), repr(text)
    assert tokenizer.decode(tokenizer.encode('say "hi"\n')) == "say hi"


def test_markers_cost_one_token_each(tokenizer: PreTrainedTokenizerFast) -> None:
    words = sum(len(tokenizer.encode(name)) for name in NAMES)
    assert len(tokenizer.encode(format_answer(NAMES))) == words + len(NAMES) + 1


def test_c23_prompt_and_padding_carry_no_loss() -> None:
    batch = supervised_batch([[1, 2, 3], [4]], [[5, 6], [7, 8, 9]], pad_id=0)
    assert batch.tokens.tolist() == [[1, 2, 3, 5, 6], [4, 7, 8, 9, 0]]
    predicted = [
        [int(t) for t, m in zip(row[1:], mask, strict=True) if m]
        for row, mask in zip(batch.tokens, batch.mask, strict=True)
    ]
    assert predicted == [[5, 6], [7, 8, 9]]
    cut = batch.take(np.array([1]))
    assert cut.tokens.tolist() == [[4, 7, 8, 9]]
    assert cut.mask.tolist() == [[True, True, True]]


def completions(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Completion]:
    made = []
    for i, text in enumerate(texts):
        ids = (*tokenizer.encode(text), tokenizer.eos_token_id)
        made.append(
            Completion(
                query=i // 2, sample=i % 2, prompt_ids=(3, 4), token_ids=ids, logprobs=(-0.5,) * len(ids), text=text,
                policy_version=0, finished=True,
            )
        )  # fmt: skip
    return made


@pytest.mark.parametrize("credit", ["set", "row"])
def test_c12_zero_variance_groups_stay_but_train_nothing(tokenizer: PreTrainedTokenizerFast, credit: str) -> None:
    texts = [format_answer(["a b", "c"]), format_answer(["d", "e f"]), format_answer(["g", "h"]), "broken"]
    scored = ScoredBatch(
        fanouts=tuple(parse(text, 2) for text in texts),
        rewards=np.array([1.0, 3.0, 2.0, 2.0], "f4"),
        terms={},
        items=np.zeros((4, 2, 1), dtype=np.int64),
        row_credit=np.array([[0.0, 1.0], [2.0, 3.0], [0.0, 0.0], [0.0, 0.0]], "f4"),
        cosine=np.zeros(4, "f4"),
    )
    config = parse_config(
        {"rl": {"group_size": 2, "queries_per_step": 2, "updates_per_batch": 1}, "objective": {"credit": credit}}
    )
    batch = assemble(completions(tokenizer, texts), scored, tokenizer, config)
    assert batch.mask[:2].any(axis=1).all()
    assert not batch.mask[2:].any()
    first = batch.advantages[0][batch.mask[0]]
    if credit == "set":
        assert first == pytest.approx(-1.0, abs=1e-4)
    else:
        assert first[0] == pytest.approx(-1.0, abs=1e-4)  # the opening marker belongs to the set
        assert first[1] == pytest.approx((0.0 - 1.0) / 1.0, abs=1e-4)  # against the first sub-query of the other answer


def test_c15_policy_directory_round_trip_and_its_checks(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    create_policy(tmp_path, tokenizer, Policy(vocab_size=400, hidden=64, layers=1, heads=2), seed=0)
    check_policy(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert encode_prompt(loaded, "apple pie") == tokenizer.encode("apple pie")
    with pytest.raises(UserError, match="multiple of 32"):
        create_policy(tmp_path, tokenizer, Policy(vocab_size=400, hidden=64, layers=1, heads=4), seed=0)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        check_policy(tmp_path)
    with pytest.raises(UserError, match=r"config\.json"):
        check_policy(tmp_path / "nowhere")


def test_a_tokenizer_that_is_its_file_alone_is_the_one_that_transformers_would_load(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    create_policy(tmp_path, tokenizer, Policy(vocab_size=400, hidden=64, layers=1, heads=2), seed=0)
    program = (
        "import sys; from pathlib import Path; from r4t.policy import load_tokenizer;"
        " load_tokenizer(Path(sys.argv[1])); print('transformers.models.auto.modeling_auto' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True).stdout
    assert said == "False\n", "and does not import the models for it"
    own, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert type(own) is type(theirs)
    assert own.get_vocab() == theirs.get_vocab()
    assert own.special_tokens_map == theirs.special_tokens_map
    text = format_answer(["salad", "cold soup"])
    assert own.encode(text) == theirs.encode(text)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": "qwen2"}),
        ("config.json", {"model_type": "deepseek_v3"}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ("tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"}),
    ],
)
def test_other_tokenizers_are_left_to_transformers(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, file: str, changes: dict[str, str]
) -> None:
    create_policy(tmp_path, tokenizer, Policy(vocab_size=400, hidden=64, layers=1, heads=2), seed=0)
    (tmp_path / file).write_text(json.dumps(json.loads((tmp_path / file).read_text()) | changes))
    with mock.patch.object(AutoTokenizer, "from_pretrained", wraps=AutoTokenizer.from_pretrained) as asked:
        load_tokenizer(tmp_path)
    assert asked.call_count == 1


def test_the_files_of_a_fresh_policy_are_those_that_transformers_writes(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    create_policy(tmp_path / "own", tokenizer, Policy(vocab_size=400, hidden=64, layers=1, heads=2), seed=0)
    LlamaForCausalLM.from_pretrained(tmp_path / "own").save_pretrained(tmp_path / "theirs")
    for path in (tmp_path / "theirs").iterdir():
        assert path.read_bytes() == (tmp_path / "own" / path.name).read_bytes(), path.name


def test_a_fresh_policy_starts_from_what_the_encoder_knows_of_its_tokens(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = load_encoder("wordllama")
    words = token_vectors(tokenizer, encoder, 64, seed=0)
    token_of = {tokenizer.decode([token]): token for token in range(len(tokenizer))}
    twice = [
        (token, token_of[text.strip()])
        for text, token in token_of.items()
        if text[:1] == " " and text[1:].isalpha() and text.strip() in token_of
    ]
    assert twice  # one word, two tokens: with and without a space before it
    for inside, opening in twice:
        assert words[inside] @ words[opening] > 0.7
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1.0, atol=1e-5)
    known = encoder.encode([tokenizer.decode([token]) for token in range(len(tokenizer))])[:, :64]
    kept = (words * unit_rows(known, what="known")).sum(axis=1)
    assert kept.mean() == pytest.approx(1 / np.sqrt(1 + (BLUR / np.linalg.norm(known, axis=1).mean()) ** 2), abs=0.02)
    assert kept.max() < 0.999  # blurred, every one
    np.testing.assert_array_equal(words, token_vectors(tokenizer, encoder, 64, seed=0))
    assert token_vectors(tokenizer, encoder, 320, seed=0).shape == (len(tokenizer), 320)  # wider than the encoder

    create_policy(tmp_path, tokenizer, Policy(vocab_size=400, hidden=64, layers=1, heads=2), seed=0, words=words)
    saved = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"].numpy()
    np.testing.assert_array_equal(saved[: len(words)], words)


def test_defaults_are_consistent() -> None:
    assert Config().rl.updates_per_batch >= 2
