"""One folder of an object store: whole objects are written, read, listed and removed."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r4t.errors import UserError
from r4t.lineage import atomic_path
from r4t.storage.failures import EXTRAS, NoSuchObject, StoreError, explained
from r4t.storage.urls import split_url, url_problem

PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}


class Store:
    """The folder that `url` names. An object is there whole or not at all. Every failure is a StoreError.

    Credentials and endpoints come from the environment: AWS_*, GOOGLE_APPLICATION_CREDENTIALS, FSSPEC_*.
    """

    def __init__(self, url: str) -> None:
        if problem := url_problem(url):
            raise UserError(f"the address of the store: {problem}")
        self.scheme, self.root = split_url(url)
        self.url = f"{self.scheme}://{self.root}"
        package = PACKAGES.get(self.scheme)
        if package and importlib.util.find_spec(package) is None:
            raise UserError(f"{self.url} needs the package {package}: pip install 'r4t[{EXTRAS[self.scheme]}]'")
        import fsspec  # what it loads takes a while, and hardly a command needs it

        # Listings and instances that fsspec keeps would hide what other processes write, and new credentials.
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if self.scheme in ("file", "memory"):
            options = {"auto_mkdir": True} if self.scheme == "file" else {}
        with self._failures():
            self._fs = fsspec.filesystem(self.scheme, **options)

    def read(self, key: str, limit: int) -> bytes | None:
        """An object's bytes, or None where there is none. UserError for one of more than `limit` bytes."""
        info = self.describe(key)
        if info is None or info["type"] != "file":
            return None
        if info["size"] > limit:
            raise UserError(f"{self.url}/{key} has {info['size']:,} bytes, more than R4T ever writes there ({limit:,})")
        with self._failures():
            return bytes(self._fs.cat_file(self._path(key)))

    def describe(self, key: str) -> dict[str, Any] | None:
        """What the store says of an object or folder (`size`, `type`, its ETag), or None where there is none."""
        try:
            with self._failures():
                return dict(self._fs.info(self._path(key)))
        except NoSuchObject:
            return None

    def write(self, key: str, content: bytes) -> None:
        """Puts an object in the place of whatever was there."""
        with self._failures(write=True):
            if self.scheme == "file":
                with atomic_path(Path(self._path(key))) as temporary:
                    temporary.write_bytes(content)
            else:
                self._fs.pipe_file(self._path(key), content)

    def upload(self, key: str, path: Path) -> None:
        """Puts a file's content there; large files go in parts."""
        with self._failures(write=True):
            if self.scheme == "file":
                with atomic_path(Path(self._path(key))) as temporary:
                    shutil.copyfile(path, temporary)
            else:
                self._fs.put_file(str(path), self._path(key))

    def download(self, key: str, path: Path) -> bool:
        """Writes an object's content to `path`. False where there is no such object."""
        try:
            with self._failures():
                self._fs.get_file(self._path(key), str(path))
        except NoSuchObject:
            return False
        return True

    def listing(self, folder: str = "") -> dict[str, dict[str, Any]]:
        """What the store says of every object below `folder`, by its key within it."""
        base = self._path(folder).rstrip("/") + "/"
        try:
            with self._failures():
                found = self._fs.find(base, detail=True)
        except NoSuchObject:
            return {}
        start = base.lstrip("/")
        names = {name.lstrip("/"): info for name, info in found.items()}
        return {name.removeprefix(start): info for name, info in names.items() if name.startswith(start)}

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of every object below `folder`."""
        return {name: int(info["size"]) for name, info in self.listing(folder).items()}

    def remove(self, key: str) -> None:
        """Removes an object; there may be none."""
        try:
            with self._failures():
                self._fs.rm_file(self._path(key))
        except NoSuchObject:
            return

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    @contextmanager
    def _failures(self, *, write: bool = False) -> Iterator[None]:
        try:
            with explained(self.url, self.scheme):
                yield
        except NoSuchObject as missing:
            if not write:
                raise
            fix = "there is no such bucket or folder: create it, or correct the address"
            raise StoreError(f"{self.url}: {fix}", passing=False) from missing
