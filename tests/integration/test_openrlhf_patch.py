"""OpenRLHF's own command and modules, in processes that start as the launcher's do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import openrlhf_wheel
import pytest
from support import ROOT

from jobs import train_folm_openrlhf
from jobs.train_folm_openrlhf import environment, prepare_training, train
from r4t.catalog.dataset import load_dataset
from r4t.errors import UserError
from tests.integration.small_run import make_run, settings

DRIVER = """
import contextlib, json, os, sys
import ray
from jobs.openrlhf_trainer import main

sys.argv[1:] = ["--help"]
with contextlib.suppress(SystemExit):
    main()

@ray.remote(num_cpus=0.1)
def trained_with():
    heavy = {"deepspeed", "transformers", "openrlhf"} & set(sys.modules)  # Ray itself may load torch
    from openrlhf.trainer.ray import ppo_actor
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    loss = ppo_actor.PolicyLoss
    return {
        "heavy": sorted(heavy),
        "loss": [kind.__module__ for kind in loss.__mro__[:2]],
        "betas": sorted(c.cell_contents for c in loss.forward.__closure__ if type(c.cell_contents) is float),
        "checked": hasattr(SingleTurnAgentExecutor.execute, "_r4t"),
        "reward": os.environ["R4T_REWARD"],
    }

print(json.dumps(ray.get(trained_with.remote())))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_released_command_runs_with_the_extended_loss_in_its_workers(tmp_path: Path) -> None:
    for name in ("openrlhf", "datasets", "torchdata"):
        pytest.importorskip(name, reason=openrlhf_wheel.ABSENT)
    config = settings()
    config = config.model_copy(update={"rl": config.rl.model_copy(update={"beta_policy_old": 0.125})})
    variables = environment(config, tmp_path) | {
        "PYTHONPATH": os.pathsep.join([str(openrlhf_wheel.write_flash_attn(tmp_path / "stub")), str(ROOT)])
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "usage: train_ppo_ray" in done.stdout
    assert "--algo.advantage.is_correction_threshold" in done.stdout
    assert json.loads(done.stdout.strip().splitlines()[-1]) == {
        "heavy": [],
        "loss": ["r4t.interop.openrlhf_loss", "openrlhf.models.loss"],
        "betas": [0.05, 0.125],
        "checked": True,
        "reward": str(tmp_path),
    }


def test_training_is_prepared_from_the_warm_started_policy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", settings())
    run.close()
    config = settings()
    command = prepare_training(config, run.folder / "folm", load_dataset(run.folder / "prepare"))
    assert command[1:3] == ["-m", "jobs.openrlhf_trainer"]
    prompts = Path(command[command.index("--data.prompt_dataset") + 1])
    assert len(prompts.read_text().splitlines()) == config.rl.steps * config.rl.queries_per_step
    assert Path(command[command.index("--actor.model_name_or_path") + 1]) == (run.folder / "folm/warm_start").resolve()
    assert Path(command[command.index("--reward.remote_url") + 1]).is_file()


def test_a_trainer_progresses_while_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_folm_openrlhf, "LOOK_EVERY", 0.2)
    calls: list[float] = []
    loop = "import time\nfor _ in range(5): print('step', flush=True); time.sleep(0.5)"
    for code, least in ((loop, 2), ("import time; time.sleep(1.5)", 0)):
        calls.clear()
        train([sys.executable, "-c", code], {}, tmp_path / "output.txt", lambda: calls.append(time.monotonic()))
        assert len(calls) >= least
        assert bool(calls) == bool(least)


def test_a_trainer_that_fails_is_quoted(tmp_path: Path) -> None:
    def python(code: str) -> list[str]:
        return [sys.executable, "-c", code]

    train(python("print('good')"), {}, tmp_path / "output.txt")
    with pytest.raises(RuntimeError, match=r"ended with code 3.*\nCUDA out of memory$"):
        train(python("import sys; print('CUDA out of memory'); sys.exit(3)"), {}, tmp_path / "output.txt")
    refuse = "import argparse; argparse.ArgumentParser('train_ppo_ray').parse_args(['--no.such', '1'])"
    with pytest.raises(UserError, match=r"rl\.openrlhf\.extra"):
        train(python(refuse), {}, tmp_path / "output.txt")
    assert "good" in (tmp_path / "output.txt").read_text()
