"""What a store's libraries raise, as one message with its fix."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from r4t.errors import UserError

EXTRAS = {"s3": "s3", "gs": "gcs"}
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the role of this machine",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the service account of this machine",
}
_LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "requests", "urllib3")
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError"}
_UNREACHED = {"ConnectionError", "ClientError"}  # of botocore, requests and aiohttp
_NO_BUCKET = ("NoSuchBucket", "InvalidBucketName")


class StoreError(UserError):
    """A store does not do what is asked. `passing`: it may when asked again."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class NoSuchObject(Exception):
    """The bucket is there, the object is not."""


@contextmanager
def explained(url: str, scheme: str) -> Iterator[None]:
    """Turns the failures of a store's libraries into StoreError, and a missing object into NoSuchObject."""
    try:
        yield
    except (UserError, NoSuchObject):
        raise
    except Exception as error:
        if (explanation := _explain(error, url, scheme)) is None:
            raise
        raise explanation from error


def _explain(error: Exception, url: str, scheme: str) -> Exception | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return None  # of this machine's disk: who writes there says which
    code = _code(error)
    credentials = CREDENTIALS.get(scheme, "the rights of the folder")
    if code in _NO_BUCKET or "bucket does not exist" in str(error):
        return StoreError(f"{url}: there is no such bucket: create it, or correct the address", passing=False)
    if isinstance(error, FileNotFoundError):
        return NoSuchObject(url)
    if kinds & _NO_CREDENTIALS:
        return StoreError(f"{url}: no credentials were found in the environment: set {credentials}", passing=False)
    if isinstance(error, PermissionError) or code in ("401", "403") or _status(error) in (401, 403):
        return StoreError(f"{url}: access is denied: check {credentials}, and what they may do there", passing=False)
    if isinstance(error, (ConnectionError, TimeoutError)) or (not code and kinds & _UNREACHED):
        return StoreError(
            f"{url}: the store cannot be reached ({type(error).__name__}): check the network and, for a store of your"
            " own, its address (AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST)",
            passing=True,
        )
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _LIBRARIES:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        return StoreError(f"{url}: the store failed ({said}): try again", passing=True)
    return None


def _code(error: Exception) -> str:
    """The code that S3 gave, here or in the error that this one was made from."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _status(error: Exception) -> int:
    found = getattr(error, "code", None) or getattr(error, "status", None)
    return int(str(found)) if str(found).isdigit() else 0
