"""Ports that are chosen before their server comes up."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from cluster import ports


def test_a_port_is_free_and_nobody_is_given_it_by_chance() -> None:
    handed_out = Path("/proc/sys/net/ipv4/ip_local_port_range")
    found = {ports.free_port("127.0.0.1") for _ in range(50)}
    assert len(found) > 40, "two that start at once hardly meet"
    for port in found:
        with socket.create_server(("127.0.0.1", port)):
            pass
    if handed_out.is_file() and int(handed_out.read_text().split()[0]) >= ports.RANGE[1]:
        assert max(found) < int(handed_out.read_text().split()[0])


def test_a_port_that_somebody_holds_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    held, free = ports.free_port("127.0.0.1"), ports.free_port("127.0.0.1")
    wanted = iter([held, held, free])
    monkeypatch.setattr(ports._random, "randrange", lambda *_: next(wanted))
    with socket.create_server(("127.0.0.1", held)):
        assert ports.free_port("127.0.0.1") == free


def test_a_seeded_process_draws_other_ports() -> None:
    random.seed(0)
    first = [ports.free_port() for _ in range(3)]
    random.seed(0)
    assert [ports.free_port() for _ in range(3)] != first
