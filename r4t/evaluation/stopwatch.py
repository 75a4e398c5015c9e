"""Which part of an answer's time goes to the encoder and the index, which every method needs alike."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from r4t.catalog.encoders import Encoder
from r4t.catalog.index import Index
from r4t.types import Floats, Ints


class Stopwatch:
    """Seconds that were spent inside `running`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


class TimedEncoder(Encoder):
    """An encoder whose time is counted."""

    def __init__(self, encoder: Encoder, watch: Stopwatch) -> None:
        self._encoder, self._watch = encoder, watch
        self.name, self.dim, self.content = encoder.name, encoder.dim, encoder.content

    def encode(self, texts: Sequence[str]) -> Floats:
        with self._watch.running():
            return self._encoder.encode(texts)

    def fingerprint(self) -> str:
        return self._encoder.fingerprint()

    def _embed(self, texts: list[str]) -> Floats:
        return self._encoder._embed(texts)

    def _state(self) -> list[bytes]:
        return self._encoder._state()


class TimedIndex:
    """An index whose time is counted."""

    def __init__(self, index: Index, watch: Stopwatch) -> None:
        self._index, self._watch = index, watch
        self.size = index.size

    def search(self, queries: Floats, n: int) -> tuple[Floats, Ints]:
        with self._watch.running():
            return self._index.search(queries, n)
