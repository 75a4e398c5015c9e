"""Whether the rollout engine can serve a user's model, from its configuration alone: no weight is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cluster.devices import role_environment
from cluster.engine import chosen_engine
from r4t.config import Config
from r4t.errors import UserError
from r4t.policy import check_policy, load_tokenizer

LISTING = """\
import json
from r4t.lean_imports import lean_imports
with lean_imports():
    from vllm.model_executor.models.registry import ModelRegistry
print(json.dumps(sorted(ModelRegistry.get_supported_archs())))
"""


def check_model(folder: Path, config: Config) -> None:
    """Raises UserError, naming the fix, for a model directory that stage 1 would fail on after minutes."""
    check_policy(folder)
    try:
        model = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"policy.model {folder}: its config.json is none that transformers knows ({str(error).splitlines()[0]});"
            " models that bring their own code are not run here: give one of a built-in kind"
        ) from None
    named = set(model.architectures or [])
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if chosen_engine(config) == "vllm":
        known &= _engine_architectures(config)
    if not named & known:
        raise UserError(
            f"policy.model {folder}: vLLM and transformers do not both know {' or '.join(sorted(named)) or 'it'} as a"
            " causal language model: give one they do, such as a LlamaForCausalLM or Qwen3ForCausalLM"
        )
    limit = getattr(model, "max_position_embeddings", None)
    if limit is not None and config.policy.max_length > limit:
        raise UserError(
            f"policy.max_length {config.policy.max_length} is more than the {limit} tokens that {folder} can read:"
            " lower policy.max_length"
        )
    if config.fanout.prompt == "paper" and not load_tokenizer(folder).chat_template:
        raise UserError(
            f"policy.model {folder} has no chat template, which fanout.prompt 'paper' needs to instruct it: add"
            " chat_template.jinja beside its tokenizer, give an instruction-tuned model, or set fanout.prompt=compact"
        )


def _engine_architectures(config: Config) -> set[str]:
    """What vLLM lists. Asked in a process of its own, because the driver imports no engine."""
    environ = os.environ | role_environment("rollout", config)
    done = subprocess.run([sys.executable, "-c", LISTING], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"vLLM does not start here; `r4t doctor` looks for the cause:\n{done.stderr[-1000:]}")
    return set(json.loads(done.stdout.strip().splitlines()[-1]))
