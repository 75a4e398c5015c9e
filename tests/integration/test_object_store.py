"""Push, pull, data and the mirror of a run against an S3 server over HTTP."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import BUCKET, Way, s3_server, variables
from support import R4T, ROOT, TINY, assert_user_error, environment, r4t, wait_for

from cluster.ports import free_port
from jobs.mirroring import Mirror, mirroring
from jobs.run import Run, save_config
from r4t.config import Config, load_config
from r4t.errors import UserError
from r4t.lineage import read_manifest
from r4t.storage.failures import StoreError
from r4t.storage.pull import pull
from r4t.storage.push import read_index
from r4t.storage.sources import fetch_sources
from r4t.storage.store import Store
from r4t.verify import verify

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log.txt") as port:
        yield port


@pytest.fixture
def s3(port: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of commands; this process has it too."""
    for name, value in variables(port).items():
        monkeypatch.setenv(name, value)
    return variables(port)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    done = r4t("run", TINY, "--run-dir", folder, "--stage", "prepare")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_is_pushed_pulled_and_verified(prepared: Path, tmp_path: Path, s3: dict[str, str]) -> None:
    url = f"s3://{BUCKET}/pushed"
    first, again = r4t("push", prepared, url, env=s3), r4t("push", prepared, url, env=s3)
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "0 of them sent now" in again.stdout
    fetched = r4t("pull", url, tmp_path / "other", env=s3)
    assert fetched.returncode == 0, fetched.stderr
    assert verify(tmp_path / "other") == []
    assert (tmp_path / "other" / "seal.json").read_bytes() == (prepared / "seal.json").read_bytes()
    done = r4t("run", TINY, "--run-dir", tmp_path / "other", "--stage", "prepare")
    assert "is finished, nothing to do" in done.stdout
    held = b"".join(file.read_bytes() for file in (tmp_path / "other").rglob("*") if file.is_file())
    assert not [name for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID") if s3[name].encode() in held]


@pytest.mark.usefixtures("s3")
def test_large_files_go_in_parts(tmp_path: Path) -> None:
    store, path = Store(f"s3://{BUCKET}/large"), tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 120)
    store.upload("it", path)
    assert store.sizes() == {"it": 120 << 20}
    assert store.download("it", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize(
    ("changes", "url", "fragments"),
    [
        ({}, "s3://no-such-bucket/x", ["no such bucket", "create it"]),
        ({}, f"s3://{BUCKET}/absent", ["holds no run", "mirror.json"]),
        (dict.fromkeys(KEYS, ""), f"s3://{BUCKET}/x", ["no credentials", "AWS_ACCESS_KEY_ID"]),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, f"s3://{BUCKET}/x", ["cannot be reached", "AWS_ENDPOINT_URL"]),
        ({}, "s4://bucket/x", ["unknown kind of store 's4'", "did you mean 's3'"]),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_message(
    changes: dict[str, str], url: str, fragments: list[str], tmp_path: Path, s3: dict[str, str]
) -> None:
    done = r4t("pull", url, tmp_path / "run", env=s3 | {"HOME": str(tmp_path)} | changes)
    assert_user_error(done, *fragments)
    assert not (tmp_path / "run").exists()


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers as a store does that knows none of the keys."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_keys_that_are_refused_are_one_message(tmp_path: Path, s3: dict[str, str]) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f"http://127.0.0.1:{server.server_address[1]}"
        done = r4t("pull", f"s3://{BUCKET}/x", tmp_path / "run", env=s3 | {"AWS_ENDPOINT_URL": there})
        server.shutdown()
    assert_user_error(done, "access is denied", "AWS_ACCESS_KEY_ID")
    assert s3["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr


def test_data_comes_from_the_store_once_and_anew_when_it_changed(tmp_path: Path, s3: dict[str, str]) -> None:
    store, url = Store(f"s3://{BUCKET}/data"), f"s3://{BUCKET}/data/items.csv"
    rows = "item_id,text\n" + "".join(f"{i},dish number {i}\n" for i in range(60))
    store.write("items.csv", rows.encode())
    config = tmp_path / "c.yaml"
    config.write_text(f"task: oar\nname: shop\ndata: {{kind: table, items: '{url}', n_queries: 40}}\n")
    done = r4t("run", config, "--stage", "prepare", "--run-dir", tmp_path / "run", env=s3)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "run" / "prepare")
    assert manifest is not None
    assert manifest["sources"]["data.items"]["url"] == url
    assert manifest["sources"]["data.items"]["bytes"] == len(rows)
    assert manifest["config"]["data"]["items"] == url
    data = load_config(config).data
    path = fetch_sources(data).data.items
    assert path is not None
    inode = path.stat().st_ino
    again = fetch_sources(data)
    assert again.data.items == path
    assert path.stat().st_ino == inode
    assert again.records["data.items"]["sha256"] == manifest["sources"]["data.items"]["sha256"]
    store.write("items.csv", rows.replace("number", "nomber").encode())
    changed = fetch_sources(data)
    assert "nomber" in changed.data.items.read_text()  # type: ignore[union-attr]
    assert changed.records["data.items"]["sha256"] != again.records["data.items"]["sha256"]


@pytest.mark.usefixtures("s3")
def test_a_folder_of_the_store_is_a_folder_here() -> None:
    store = Store(f"s3://{BUCKET}/parts")
    store.write("a.txt", b"1")
    store.write("deep/b.txt", b"2")
    config = Config.model_validate({"data": {"kind": "polyvore", "items": f"s3://{BUCKET}/parts"}})
    folder = fetch_sources(config.data).data.items
    assert folder is not None
    assert (folder / "a.txt").read_text() == "1"
    assert (folder / "deep" / "b.txt").read_text() == "2"
    with pytest.raises(UserError, match=r"there is nothing at s3://runs/absent: data.items"):
        fetch_sources(Config.model_validate({"data": {"kind": "polyvore", "items": f"s3://{BUCKET}/absent"}}).data)


@pytest.fixture
def way(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    made = Way(port)
    for name, value in variables(port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield made
    made.cut()


def test_an_outage_while_a_run_works_is_said_and_made_up_for(tmp_path: Path, way: Way) -> None:
    folder = tmp_path / "mirrored"
    folder.mkdir()
    mirror = Mirror(folder, f"s3://{BUCKET}/live", every=1.0)
    mirror.fetch()
    with mirroring(mirror):
        save_config(folder, Config())
        run = Run(folder, Config(), (mirror,))
        mirror.say = run.say
        run.log("folm", 1, {"reward": 0.1})
        wait_for("the first line", lambda: "metrics.jsonl" in _names(mirror.store), timeout=60)
        way.cut()
        run.log("folm", 2, {"reward": 0.2})
        run.finished("folm")
        log = folder / "log.txt"
        wait_for("a warning", lambda: "cannot be reached" in log.read_text(), timeout=120)
        run.log("folm", 3, {"reward": 0.3})
        way.mend()
        wait_for("all of it", lambda: "has everything again" in log.read_text(), timeout=120)
        run.close()
    pull(tmp_path / "other", mirror.store)
    assert (tmp_path / "other" / "metrics.jsonl").read_text() == (folder / "metrics.jsonl").read_text()
    assert log.read_text().count("cannot be reached") == 1


def _names(store: Store) -> set[str]:
    index = read_index(store)
    return set() if index is None else set(index.files)


def test_an_outage_at_the_end_fails_with_the_command_that_mends_it(tmp_path: Path, way: Way) -> None:
    folder = tmp_path / "ended"
    folder.mkdir()
    mirror = Mirror(folder, f"s3://{BUCKET}/live", every=1000.0)

    def work() -> None:
        with mirroring(mirror):
            (folder / "result.txt").write_text("kept")
            way.cut()

    with pytest.raises(UserError, match=rf"{folder} is whole.*\n.*r4t push {folder} s3://{BUCKET}/live/ended"):
        work()
    assert (folder / "result.txt").read_text() == "kept"
    way.mend()


def test_an_outage_does_not_hide_why_a_run_ends(tmp_path: Path, way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "stopped"
    folder.mkdir()

    def work() -> None:
        with mirroring(Mirror(folder, f"s3://{BUCKET}/live", every=1000.0)):
            way.cut()
            raise SystemExit(143)

    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 143
    assert "r4t push" in capsys.readouterr().err
    way.mend()


def test_a_store_that_does_not_answer_stops_a_run_before_it_works(tmp_path: Path, s3: dict[str, str]) -> None:
    done = r4t(
        "run", TINY, "--stage", "prepare", "--run-dir", tmp_path / "run", "--set", f"cluster.mirror=s3://{BUCKET}/m",
        env=s3 | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"},
    )  # fmt: skip
    assert_user_error(done, "cannot be reached")
    assert not (tmp_path / "run" / "prepare").exists()


def test_sigterm_while_a_run_waits_for_the_store_is_said(tmp_path: Path, s3: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        command = [R4T, "run", TINY, "--stage", "prepare", "--run-dir", tmp_path / "run"]
        driver = subprocess.Popen(
            [*command, "--set", f"cluster.mirror=s3://{BUCKET}/m"],
            stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(s3 | there),
        )  # fmt: skip
        silent.settimeout(60)
        silent.accept()
        driver.terminate()
        _, said = driver.communicate(timeout=60)
    assert driver.returncode == 143, said
    assert said == "stopped by SIGTERM; the same command resumes the run\n"


def test_a_run_that_lost_its_directory_goes_on_from_the_store(tmp_path: Path, s3: dict[str, str]) -> None:
    folder, mirror = tmp_path / "lost", ["--set", f"cluster.mirror=s3://{BUCKET}/runs"]
    command = ["run", TINY, "--stage", "prepare", "--run-dir", folder, *mirror]
    first = r4t(*command, env=s3)
    assert first.returncode == 0, first.stderr
    before = (folder / "prepare" / "manifest.json").read_bytes()
    shutil.rmtree(folder)
    second = r4t(*command, env=s3)
    assert "files came from" in second.stdout, second.stdout + second.stderr
    assert "is finished, nothing to do" in second.stdout
    assert (folder / "prepare" / "manifest.json").read_bytes() == before
    assert verify(folder) == []
    other = r4t(*command, "--set", "data.n_queries=41", env=s3)
    assert_user_error(other, "was started with another configuration", "data.n_queries")
    shutil.rmtree(folder)
    other = r4t(*command, "--set", "data.n_queries=41", env=s3)
    assert_user_error(other, "was started with another configuration", "data.n_queries")
    assert not folder.exists(), "nothing of another run is fetched"


def test_a_finished_run_whose_last_push_failed_is_sent_by_the_same_command(
    prepared: Path, tmp_path: Path, s3: dict[str, str]
) -> None:
    shutil.copytree(prepared, tmp_path / "run")
    done = r4t(
        "run", TINY, "--stage", "prepare", "--run-dir", tmp_path / "run", "--set", f"cluster.mirror=s3://{BUCKET}/late",
        env=s3,
    )  # fmt: skip
    assert "nothing to do" in done.stdout, done.stderr
    assert "prepare/manifest.json" in _names(Store(f"s3://{BUCKET}/late/run"))


def test_a_google_bucket_that_cannot_be_reached_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gcsfs")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"gs://bucket/x: the store cannot be reached") as error:
        Store("gs://bucket/x").read("it", 10)
    assert error.value.passing
    assert time.monotonic() - began < 120


def test_nothing_of_a_store_is_loaded_until_one_is_opened() -> None:
    code = (
        "import sys, jobs.cli, r4t.config; print(*sorted({'fsspec', 's3fs', 'botocore', 'gcsfs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
