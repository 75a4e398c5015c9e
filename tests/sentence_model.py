"""A sentence-transformers directory small enough to write and load in a moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = ["warm", "light", "dinner", "lunch", "apple", "pie", "soup", "##s", "a"]
HIDDEN, WIDE = 16, 12


def write_model(
    folder: Path, pooling: str = "mean", dense: bool = False, normalize: bool = True, words: Sequence[str] = WORDS
) -> Path:
    """A random two-layer BERT in the layout that the library writes."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    shape = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape, max_position_embeddings=32)).save_pretrained(folder)
    modules = [("", "models.Transformer"), ("1_Pooling", "models.Pooling")]
    modules += [("2_Dense", "models.Dense")] * dense + [("3_Normalize", "models.Normalize")] * normalize
    write = [
        {"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.{t}"} for i, (p, t) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(write))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{mode}": mode.startswith(pooling) for mode in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": HIDDEN, **modes}))
    if dense:
        (folder / "2_Dense").mkdir()
        settings = {"in_features": HIDDEN, "out_features": WIDE, "bias": True}
        settings["activation_function"] = "torch.nn.modules.activation.Tanh"  # type: ignore[assignment]
        (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
        weights = {"linear.weight": torch.randn(WIDE, HIDDEN), "linear.bias": torch.randn(WIDE)}
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    return folder
