"""Clients that take their time: a request one byte after another, and a large answer that nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter

KINDS = ("drip_head", "drip_body", "slow_reader")
EVERY = 0.1  # seconds between two bytes
PIPELINED = 40  # large answers that are asked for at once: a kernel keeps megabytes
RECEIVING = 4096  # bytes that the kernel keeps for a client that does not read
HEAD = b"POST /v1/retrieve HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
LARGE = json.dumps({"queries": ["soup"] * 64, "k": 100, "map": True}).encode()


async def linger(host: str, port: int, each: int, seconds: float) -> dict[str, Counter[str]]:
    """`each` connections of every kind at once. By kind: a status, or `closed`, where the server ended a request within
    `seconds`; `cut` where it ended answers that were not taken; `open` where it did neither. At most twice as long."""
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}

    async def one(kind: str) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVING)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, (host, port))
            outcomes[kind][await (_unread if kind == "slow_reader" else _dripped)(client, kind, seconds)] += 1

    await asyncio.gather(*(one(kind) for kind in KINDS for _ in range(each)))
    return outcomes


async def _dripped(client: socket.socket, kind: str, seconds: float) -> str:
    loop = asyncio.get_running_loop()

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(
                client, HEAD + (b"x-long: " if kind == "drip_head" else b"content-length: 9999\r\n\r\n")
            )
            while True:
                await loop.sock_sendall(client, b"1")
                await asyncio.sleep(EVERY)

    dripping = asyncio.create_task(drip())
    answer = b""
    try:
        async with asyncio.timeout(seconds):
            while part := await loop.sock_recv(client, 1 << 16):
                answer += part
    except TimeoutError:
        return "open"
    except ConnectionError:
        pass  # it had closed when the next byte came
    finally:
        dripping.cancel()
    return answer.split(b" ", 2)[1].decode("latin-1") if answer.startswith(b"HTTP/") else "closed"


async def _unread(client: socket.socket, _: str, seconds: float) -> str:
    """What becomes of answers, more than the kernel keeps, once nobody has read them for so long."""
    loop = asyncio.get_running_loop()
    request = HEAD + b"content-length: %d\r\n\r\n" % len(LARGE) + LARGE
    asking = asyncio.create_task(_sent(client, PIPELINED * request))
    try:
        await asyncio.sleep(seconds)
        async with asyncio.timeout(seconds):
            while await loop.sock_recv(client, 1 << 20):
                pass
    except TimeoutError:
        return "open"
    except ConnectionError:
        return "cut"
    finally:
        asking.cancel()
    return "cut"


async def _sent(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(client, data)
