"""Without its KL terms, Soft-GRPO is OpenRLHF's clipped policy loss, in value and in gradient.

Set R4T_OPENRLHF to a wheel of openrlhf 0.11.2 or to a folder that holds it (`pip download openrlhf==0.11.2 --no-deps`);
an installed package is found by itself. Only its loss is loaded: importing the package needs flash-attn.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import torch

from r4t.grpo import importance_weights, soft_grpo_loss

LOSS = "openrlhf/models/loss.py"
CAP = 2.0


def loss_file(folder: Path) -> Path | None:
    """OpenRLHF's loss, unpacked into `folder` where it lies in a wheel."""
    if place := os.environ.get("R4T_OPENRLHF"):
        path = Path(place)
        wheels = [path] if path.suffix == ".whl" else sorted(path.glob("openrlhf-*.whl"))
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (name,) = [name for name in archive.namelist() if name.endswith(LOSS)]
                return Path(archive.extract(name, folder))
        return next(iter(sorted(path.rglob(LOSS))), None)
    try:
        files = distribution("openrlhf").files or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.as_posix() == LOSS), None)


@pytest.fixture(scope="module")
def policy_loss(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = loss_file(tmp_path_factory.mktemp("openrlhf"))
    if path is None:
        pytest.skip("openrlhf is not installed and R4T_OPENRLHF names no wheel or folder of it")
    utils = types.ModuleType("oracle.utils")
    utils.masked_mean = lambda tensor, mask, dim=None: (tensor * mask).sum(dim=dim) / mask.sum(dim=dim)  # type: ignore[attr-defined]  # fmt: skip
    spec = importlib.util.spec_from_file_location("oracle.loss", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    names = {"oracle": types.ModuleType("oracle"), "oracle.utils": utils, "oracle.loss": module}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setitem(sys.modules, name, value)
        spec.loader.exec_module(module)
    return module.PolicyLoss


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("corrected", [False, True], ids=["plain", "truncated-importance"])
def test_c17_soft_grpo_without_kl_is_openrlhfs_policy_loss(policy_loss: Any, seed: int, corrected: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    shape = (6, 11)
    old = -torch.rand(shape, generator=g) * 4
    start = old + 0.4 * torch.randn(shape, generator=g)
    engine = old + 0.5 * torch.randn(shape, generator=g)
    advantages = torch.randn(shape, generator=g)
    mask = (torch.rand(shape, generator=g) < 0.7).float()
    tokens = mask.sum()

    ours = start.clone().requires_grad_()
    weights = importance_weights(old, engine, CAP) if corrected else None
    parts = soft_grpo_loss(
        ours, old, advantages, clip=0.2, beta_policy_old=0.0, beta_old_policy=0.0, importance=weights
    )
    value = (parts.total * mask).sum() / tokens
    value.backward()

    theirs = start.clone().requires_grad_()
    correction = {"is_correction_level": "token", "is_correction_mode": "clip", "is_correction_threshold": [0.0, CAP]}
    oracle = policy_loss(clip_eps_low=0.2, clip_eps_high=0.2, **(correction if corrected else {}))
    expected, clip_ratio, *_ = oracle(theirs, old, advantages, action_mask=mask, rollout_log_probs=engine)
    expected.backward()

    assert ours.grad is not None
    assert theirs.grad is not None
    assert theirs.grad.abs().max() > 1e-3
    assert float((value - expected).detach().abs()) < 1e-6
    assert float((ours.grad - theirs.grad).abs().max()) < 1e-6
    assert float((parts.clipped * mask).sum() / tokens) == pytest.approx(float(clip_ratio), abs=1e-6)
