"""Connections that hold a server without end are closed: uvicorn waits for ever for the head of a request, and for
whoever asks and then does not read."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

LEAST = 65536
"""Bytes of an answer that a client must take in each of its spans of time: slow links do, whoever sleeps does not."""


def patient_protocol(seconds: float, base: type[asyncio.Protocol] = H11Protocol) -> type[asyncio.Protocol]:
    """uvicorn's HTTP/1.1, that gives the head of each request `seconds` from its first byte, or from connecting, and
    each `LEAST` bytes of an answer `seconds` to be taken.

    base: which of its two.
    """

    class Patient(base):  # type: ignore[misc, valid-type]
        _late: asyncio.TimerHandle | None = None
        _untaken: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            # Writing counts as paused while anything is left, or the last part of an answer could stay for ever.
            transport.set_write_buffer_limits(high=0)
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._arrived():
                self._stop_waiting()
            elif self._late is None:
                self._await_head()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._await_taking()

        def resume_writing(self) -> None:
            self._stop_taking()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._stop_taking()
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

        def _await_taking(self) -> None:
            self._stop_taking()
            self._untaken = self.loop.call_later(seconds, self._look, self.transport.get_write_buffer_size())

        def _look(self, before: int) -> None:
            if before - self.transport.get_write_buffer_size() < LEAST:
                self.transport.abort()  # closing would wait for the client
            else:
                self._await_taking()

        def _stop_taking(self) -> None:
            if self._untaken is not None:
                self._untaken.cancel()
                self._untaken = None

    return Patient
