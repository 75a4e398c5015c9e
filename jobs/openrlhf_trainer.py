"""The process that OpenRLHF trains in: `python -m jobs.openrlhf_trainer ARGUMENTS OF train_ppo_ray`.

It joins the cluster in RAY_ADDRESS with a runtime environment of its own, in which every worker loads R4T's two changes
to OpenRLHF (`r4t.interop.openrlhf_patch`), and then runs the released command as it is.
"""

from __future__ import annotations

import os
import runpy
import sys

import ray

from r4t.interop import openrlhf_patch
from r4t.interop.openrlhf_reward import VARIABLE

PASSED_ON = (openrlhf_patch.VARIABLE, VARIABLE, "PYTHONPATH", "HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS")
THEIRS = {"TOKENIZERS_PARALLELISM": "true", "NCCL_DEBUG": "WARN", "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1"}


def runtime_environment() -> dict[str, object]:
    """What every worker of the job starts with: OpenRLHF's own variables, R4T's, and the hook."""
    variables = THEIRS | {name: os.environ[name] for name in (*THEIRS, *PASSED_ON) if name in os.environ}
    return {"env_vars": variables, "worker_process_setup_hook": openrlhf_patch.HOOK}


def main() -> None:
    openrlhf_patch.install()
    ray.init(address=os.environ.get("RAY_ADDRESS"), runtime_env=runtime_environment())
    sys.argv[0] = "train_ppo_ray"
    runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
