"""A request that is not answered, and why."""

from __future__ import annotations


class RefusedError(Exception):
    """status as HTTP has it; code for programs, message for people; field: the key of the request that is wrong."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.field = status, code, field
