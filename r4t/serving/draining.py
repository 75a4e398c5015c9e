"""How one process stops: it tells whoever asks, finishes what it admitted, and closes its door only then."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from types import FrameType

import uvicorn

from r4t.serving.service import Service

EVERY = 0.05  # seconds between two looks at what still waits


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which stops listening at once: a balancer would see refused connections and no reason.

    From the signal on `/readyz` and new requests get 503, until what was admitted is answered or `serve.drain` is over.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What a signal calls."""
        self._service.stop_admitting()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Waits for what was admitted, then closes; both together take `serve.drain` seconds at most."""
        ends = time.monotonic() + self._service.settings.drain
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._service.settings.drain):
                while self._service.waiting and not self.force_exit:
                    await asyncio.sleep(EVERY)
        self.config.timeout_graceful_shutdown = max(1, int(ends - time.monotonic()))
        await super().shutdown(sockets)
