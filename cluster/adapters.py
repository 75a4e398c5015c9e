"""LoRA on the learner (peft): only low-rank adapters train, and the rest of the system sees whole weights.

Rollout engines, checkpoints' `model.safetensors` and every later stage get each adapted matrix with its adapter merged
in, under its usual name. So nothing outside the learner needs to know whether a policy was trained in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from r4t.config import Lora
from r4t.errors import UserError

ADAPTER = "default"  # peft's name for the first adapter
BASE, DOWN, UP = "base_layer", f"lora_A.{ADAPTER}", f"lora_B.{ADAPTER}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One weight as the outside knows it, and the parameters it is made of: itself, or base, down and up."""

    name: str
    parameters: list[Any]
    scaling: float = 1.0

    @property
    def base(self) -> Any:
        return self.parameters[0]

    def value(self) -> torch.Tensor:
        """The weight itself, or `base + scaling * up @ down` in the base's precision. Needs whole parameters."""
        if len(self.parameters) == 1:
            return self.base.detach()
        base, down, up = (parameter.detach() for parameter in self.parameters)
        return torch.addmm(base.float(), up.float(), down.float(), alpha=self.scaling).to(base.dtype)


def add_adapters(model: Any, lora: Lora, seed: int) -> None:
    """Freezes `model` and adds an adapter to each of `lora.targets`; merged, the fresh adapters change nothing."""
    from peft import LoraConfig

    found = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    if missing := sorted(set(lora.targets) - found):
        raise UserError(
            f"policy.lora.targets names {', '.join(missing)}, which the policy lacks: choose from"
            f" {', '.join(sorted(found - {'lm_head'}))}"
        )
    torch.manual_seed(seed)  # every rank draws the same adapters
    settings = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0)
    model.add_adapter(settings, adapter_name=ADAPTER)


def trainable(module: torch.nn.Module) -> list[tuple[str, Any]]:
    """The named parameters that the optimiser holds."""
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def published(module: torch.nn.Module, *, remove_duplicate: bool = True) -> Iterator[Published]:
    """Every weight once, in Hugging Face naming and the model's order; `remove_duplicate` leaves a tied head out."""
    named: dict[str, Any] = dict(module.named_parameters(remove_duplicate=remove_duplicate))
    for name, parameter in named.items():
        owner, base, rest = name.partition(f".{BASE}.")
        if base:
            layer: Any = module.get_submodule(owner)
            parts = [parameter]
            if rest == "weight":
                parts += [named[f"{owner}.{DOWN}.weight"], named[f"{owner}.{UP}.weight"]]
            yield Published(name=f"{owner}.{rest}", parameters=parts, scaling=layer.scaling[ADAPTER])
        elif f".{DOWN}." not in name and f".{UP}." not in name:
            yield Published(name=name, parameters=[parameter])
