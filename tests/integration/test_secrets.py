"""A run with every secret set leaves none of them in any byte of its directory, nor in what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import TINY, r4t

SECRETS = {
    "WANDB_API_KEY": "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678",
    "OPENAI_API_KEY": "sk-canary-9f8e7d6c5b4a39281706",
    "R4T_REWARD_KEY": "reward-canary-77aa55cc",
    "R4T_SERVE_KEY": "serve-canary-31bb90aa",
    "HF_TOKEN": "hf_canaryCanaryCanaryCanary",
}


def test_no_secret_is_written_or_printed(tmp_path: Path) -> None:
    command = ["run", TINY, "--run-dir", tmp_path / "run", "--stage", "prepare", "--set", "tracking.wandb=offline"]
    done = r4t(*command, env=SECRETS)
    assert done.returncode == 0, done.stderr
    held = done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("wandb" in path.parts for path in files), "tracking wrote its files too"
    assert (tmp_path / "run" / "seal.json").is_file()
    for name, value in SECRETS.items():
        assert value not in held, name
        found = [path for path in files if value.encode() in path.read_bytes()]
        assert found == [], name


@pytest.mark.parametrize(
    "override",
    [
        "data.endpoint.url=http://user:canary-password@host/v1",
        "rl.openrlhf.reward_urls=[http://r4t:canary-password@host/get_reward]",
        "data.endpoint.api_key_env=canary-password",
    ],
)
def test_a_secret_in_the_wrong_key_is_not_repeated(override: str) -> None:
    done = r4t("run", TINY, "--set", override)
    assert done.returncode == 2
    assert "canary-password" not in done.stdout + done.stderr
