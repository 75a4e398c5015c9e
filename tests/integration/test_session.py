"""A run's own Ray session: any number side by side, gone with its process, and clear about what it cannot have."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support import R4T, ROOT, TINY, assert_all_end, assert_user_error, descendants, environment, r4t, raylets, wait_for

pytestmark = pytest.mark.slow

SESSION = """
import ray, sys, time
from ray._private import utils
from cluster.session import session
from r4t.config import Config
ask = utils.get_dashboard_dependency_error
with session(Config()):
    assert "ray.dashboard.optional_deps" not in sys.modules
    assert utils.get_dashboard_dependency_error is ask
    print(ray.get_runtime_context().gcs_address, ray.cluster_resources()["CPU"], flush=True)
    sys.stdin.readline()
assert not ray.is_initialized()
"""

LEAVING = """
import atexit, os, psutil, ray, sys
from pathlib import Path
from cluster.session import session
from r4t.config import Config
class Held:
    def __init__(self, path): self.path = path
    def __del__(self): self.path.touch()
class Worker:
    def begin(self, folder):
        sys.modules["held"] = Held(folder / "taken to pieces")
        atexit.register((folder / "left").touch)
        sys.stdout.write("a last word")
        return os.getpid()
with session(Config()):
    worker = ray.remote(Worker).remote()
    process = psutil.Process(ray.get(worker.begin.remote(Path(sys.argv[1]))))
    del worker
    process.wait(30)
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    print(any("a last word" in file.read_text() for file in logs.glob("worker-*.out")))
"""


def _start_session(stderr: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SESSION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=ROOT,
        env=environment(),
    )


def test_local_sessions_stand_side_by_side_and_a_killed_one_leaves_nothing() -> None:
    first, second = _start_session(), _start_session()
    try:
        assert first.stdout
        assert second.stdout
        one, two = first.stdout.readline().split(), second.stdout.readline().split()
        assert one[0] != two[0]
        assert float(one[1]) == len(psutil.Process().cpu_affinity() or [])
        children = descendants(first.pid)
        assert children
        parts = {part.rsplit("/", 1)[-1] for child in children for part in child.cmdline()}
        assert "raylet" in parts
        assert not parts & {"ray::IDLE", "monitor.py", "log_monitor.py", "dashboard.py"}, "no more than it needs"
        first.kill()
        assert_all_end(children)
        assert second.poll() is None
        others = descendants(second.pid)
        second.communicate("\n", timeout=60)
        assert second.returncode == 0
        assert_all_end(others)
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_an_actor_that_is_let_go_ends_in_order_but_takes_nothing_to_pieces(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEAVING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=120)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["left"]


def test_a_node_that_does_not_come_up_is_one_message_and_leaves_nothing() -> None:
    starting = _start_session(stderr=subprocess.PIPE)
    try:
        wait_for("its raylet", lambda: bool(raylets(starting.pid)), timeout=60, every=0.01)
        raylets(starting.pid)[0].suspend()
        children = descendants(starting.pid)
        _, said = starting.communicate(timeout=120)
    finally:
        starting.kill()
    assert starting.returncode == 1
    last = said.strip().splitlines()[-1]
    assert "UserError: Ray's own processes did not start within the 30 s" in last, said
    assert "repeat the command when this machine has less to do" in last
    assert_all_end(children)


def test_too_few_cpus_is_said_before_anything_is_written(tmp_path: Path) -> None:
    done = r4t("run", TINY, "--run-dir", tmp_path / "run", "--set", "rollout.workers=500")
    assert_user_error(done, "CPUs", "rollout.workers", "the cluster has")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(("options", "env"), [(["--address", "127.0.0.1:1"], {}), ([], {"RAY_ADDRESS": "127.0.0.1:1"})])
def test_a_cluster_that_does_not_answer_is_said(tmp_path: Path, options: list[str], env: dict[str, str]) -> None:
    done = r4t("run", TINY, "--run-dir", tmp_path / "run", *options, env=env)
    assert_user_error(done, "no Ray cluster answers at '127.0.0.1:1'", "ray start --head")


@pytest.mark.parametrize("moment", ["Ray starts", "a policy is made"])
def test_sigterm_ends_the_run_and_its_actors_and_lets_go_of_the_directory(moment: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = subprocess.Popen(
        [R4T, "run", str(TINY), "--run-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    try:
        come = {"Ray starts": lambda: bool(raylets(run.pid)), "a policy is made": (folder / "folm" / "initial").exists}
        wait_for(moment, come[moment], timeout=300, every=0.01)
        children = descendants(run.pid)
        run.send_signal(signal.SIGTERM)
        _, errors = run.communicate(timeout=120)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 128 + signal.SIGTERM
    assert "the same command resumes the run" in errors
    assert_all_end(children)
    assert not folder.joinpath("config.yaml").exists() or '"running": false' in r4t("status", folder, "--json").stdout
