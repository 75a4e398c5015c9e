"""What R4T's servers share: keys and bodies of requests."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os

from starlette.requests import Request


class BodyTooLargeError(Exception):
    """A request holds more bytes than the server takes."""


def key_digest(key: str) -> str:
    """What a server holds of its key and may pass on: tells the key from others, and is none."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def own_digest(variable: str) -> str | None:
    """The digest of the key that an environment variable holds; None where it is unset or empty."""
    key = os.environ.get(variable)
    return key_digest(key) if key else None


def carries_key(request: Request, digest: str) -> bool:
    """Whether a request has the key of that digest, as `Authorization: Bearer KEY` or as a Basic password. Takes the
    same time for every wrong key of a length."""
    return hmac.compare_digest(key_digest(credential(request.headers.get("authorization", ""))), digest)


def credential(header: str) -> str:
    """The key in an `Authorization` header; empty where there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):  # no base64, or no ASCII
            raw = base64.b64decode(value, validate=True)
            try:
                pair = raw.decode()
            except UnicodeDecodeError:
                pair = raw.decode("latin-1")  # as aiohttp writes it
            return pair.partition(":")[2]
    return ""


async def read_body(request: Request, limit: int) -> bytes:
    """The body. Raises BodyTooLargeError as soon as it exceeds `limit` bytes, and Starlette's ClientDisconnect."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLargeError
    return bytes(body)
