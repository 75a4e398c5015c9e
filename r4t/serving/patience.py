"""Connections whose requests never arrive are closed: uvicorn waits for the head of a request for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient_protocol(seconds: float, base: type[asyncio.Protocol] = H11Protocol) -> type[asyncio.Protocol]:
    """uvicorn's HTTP/1.1, that gives the head of each request `seconds` from its first byte, or from connecting.

    base: which of its two.
    """

    class Patient(base):  # type: ignore[misc, valid-type]
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._arrived():
                self._stop_waiting()
            elif self._late is None:
                self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _arrived(self) -> bool:
            """Whether a request is being answered, or the connection has become a websocket's."""
            answering = self.cycle is not None and not self.cycle.response_complete
            return answering or self.transport.get_protocol() is not self

        def _await_head(self) -> None:
            self._late = self.loop.call_later(seconds, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Patient
