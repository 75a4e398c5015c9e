"""The base of every part of the configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration. Immutable, and closed: it accepts the keys below and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True)
