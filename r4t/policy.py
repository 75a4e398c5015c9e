"""The policy on disk: a Hugging Face directory, given by the user or made here (own BPE tokenizer, small Llama)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from r4t.catalog.encoders import Encoder, unit_rows
from r4t.config import Policy
from r4t.errors import UserError
from r4t.fanout import CLOSE, OPEN, QUERY_CLOSE, QUERY_OPEN
from r4t.lean_imports import lean_imports
from r4t.types import Floats

if TYPE_CHECKING:  # it takes seconds, which scorers and drivers need not wait for
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, END = "<pad>", "<end>"
# One token per marker keeps answers short: a fan-out of ten costs eleven tokens beside its words.
MARKERS = (QUERY_OPEN, QUERY_CLOSE, f'{OPEN}["', '", "', f'"]{CLOSE}')

TIED = "lm_head.weight"  # the embeddings under another name
HEAD_WIDTH = 32  # vLLM's CPU attention runs multiples of this
BLUR = 0.3  # norm of the noise on unit token vectors: a tied output head must tell tokens of like text apart


def train_tokenizer(texts: Iterable[str], vocab_size: int, fold: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer over `texts` (plain queries, no markup), with one token per marker of the format.

    `fold`: a word has one form, whatever its case and wherever it stands. The policy then copies a word of the query
    into an answer token by token, where "Chicken", " Chicken" and "chicken" would be three tokens to tell apart.

    Characters that would break a JSON string (quotes, backslashes, control characters) have no token of their own: the
    policy cannot write them, and a query that holds them is read without them.
    """
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    if fold:
        bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=fold)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(MARKERS),
        special_tokens=[PAD, END],
        initial_alphabet=sorted(set(pre_tokenizers.ByteLevel.alphabet()) - _unwritable()),
        show_progress=False,
    )
    bpe.train_from_iterator((text.translate(_BLANK) for text in texts), trainer)
    bpe.add_tokens([AddedToken(marker, normalized=False, special=False) for marker in MARKERS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False
    )


_BLANK = dict.fromkeys([*range(32), 127, ord('"'), ord("\\")], " ")


def _unwritable() -> set[str]:
    """The byte-level alphabet's stand-ins for the characters that `train_tokenizer` leaves out."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return {piece for code in _BLANK for piece, _ in byte_level.pre_tokenize_str(chr(code))}


def create_policy(
    folder: Path, tokenizer: PreTrainedTokenizerFast, policy: Policy, seed: int, words: Floats | None = None
) -> None:
    """Writes a freshly initialised small Llama with `tokenizer` to `folder`, in Hugging Face format.

    `words` [len(tokenizer), hidden], where given, are the token embeddings it starts with.
    """
    with lean_imports():
        from transformers import LlamaConfig, LlamaForCausalLM

    if policy.hidden % (policy.heads * HEAD_WIDTH):
        raise UserError(
            f"policy.hidden {policy.hidden} over policy.heads {policy.heads} gives heads that vLLM cannot run on a CPU:"
            f" make the width of a head a multiple of {HEAD_WIDTH}, for example hidden 128 with 4 heads"
        )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=policy.vocab_size,
        hidden_size=policy.hidden,
        intermediate_size=8 * policy.hidden // 3 // 16 * 16,
        num_hidden_layers=policy.layers,
        num_attention_heads=policy.heads,
        num_key_value_heads=policy.heads,
        max_position_embeddings=policy.max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # Tied embeddings at the usual 0.02 start with near-uniform attention and the model never learns to read the query.
    embeddings = model.model.embed_tokens.weight
    torch.nn.init.normal_(embeddings, std=policy.hidden**-0.5)
    if words is not None:
        with torch.no_grad():
            embeddings[: len(words)] = torch.from_numpy(words)
    _save(model, folder)
    tokenizer.save_pretrained(folder)


def _save(model: PreTrainedModel, folder: Path) -> None:
    """What `model.save_pretrained` writes, which imports DeepSpeed for it where that is installed."""
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != TIED}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def token_vectors(tokenizer: PreTrainedTokenizerBase, encoder: Encoder, hidden: int, seed: int) -> Floats:
    """[len(tokenizer), hidden] unit rows: what the retrieval encoder knows of each token's text, blurred a little.

    A policy that starts from them knows which words belong together, and that a word opening an answer is the one that
    stood inside the query, before it has read one example. Columns beyond the encoder's width are noise alone.
    """
    known = encoder.encode(tokenizer.batch_decode([[token] for token in range(len(tokenizer))]))[:, :hidden]
    rows = BLUR * np.random.default_rng(seed).normal(size=(len(known), hidden)) * hidden**-0.5
    rows[:, : known.shape[1]] += known
    return unit_rows(rows, what="the token embeddings")


def check_policy(folder: Path) -> None:
    """Raises UserError unless `folder` holds a causal language model with its tokenizer, in safetensors."""
    if not (folder / "config.json").is_file():
        raise UserError(f"policy.model {folder} has no config.json: give a Hugging Face model directory")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise UserError(
            f"policy.model {folder} has no tokenizer: save one beside the model (tokenizer.save_pretrained)"
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"policy.model {folder} has no .safetensors weights: save the model with save_pretrained")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face directory, padding where it names no token for it with its end."""
    if _as_made_here(folder):
        from transformers import PreTrainedTokenizerFast  # AutoTokenizer would import seconds of models first

        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _as_made_here(folder: Path) -> bool:
    """Whether transformers would read the tokenizer as it reads those of `create_policy`: for other kinds of models it
    knows classes of their own, and some that it takes for wrong."""
    try:
        model = json.loads((folder / "config.json").read_text())["model_type"]
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        kinds = model, tokenizer["tokenizer_class"]
    except (OSError, ValueError, LookupError, TypeError):
        return False  # transformers says what is the matter
    return kinds == ("llama", "TokenizersBackend") and "auto_map" not in tokenizer


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of a user message: through the model's chat template when it has one, as plain text otherwise.

    Texts that the tokenizer holds for control tokens (`<|im_end|>`, `<end>`) are taken out: a query must not close its
    own turn.
    """
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            prompt = prompt.replace(token.content, " ")
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        return tokenizer.encode(text, add_special_tokens=False)
    return tokenizer.encode(prompt, add_special_tokens=False)
