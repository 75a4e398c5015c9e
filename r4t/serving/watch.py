"""Takes a new version of what is served into use, while requests go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from r4t.errors import UserError
from r4t.serving.lineage import lineage_of
from r4t.serving.service import Service
from r4t.serving.version import Version

log = logging.getLogger("r4t.serve")


class Watcher:
    """Looks at the manifests of exported folders every so often, in a thread of its own.

    A version that cannot be opened is reported once and leaves the one in use where it is.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        open_: Callable[[], Version],
        service: Service,
        every: float,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folders, self._open, self._service, self._every, self._report = folders, open_, service, every, report
        self._refused = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="r4t-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; a version that is being opened is not taken any more."""
        self._stop.set()

    def look(self) -> bool:
        """Whether a new version was taken."""
        try:
            found = lineage_of(self._folders)
        except (UserError, OSError):
            return False  # an export replaces a folder in two steps: the next look sees it whole
        if found in (self._service.version.exported, self._refused):
            return False
        try:
            version = self._open()
        except Exception as error:
            if self._still(found):
                self._refused = found
                self._report("failed")
                log.error("version %s cannot be served, %s stays: %s", found, self._service.version.lineage, error)
            return False
        if self._stop.is_set():
            return False
        self._service.swap(version)
        self._report("taken")
        log.info("serving version %s", version.lineage)
        return True

    def _still(self, lineage: str) -> bool:
        try:
            return lineage_of(self._folders) == lineage
        except (UserError, OSError):
            return False

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.look()
