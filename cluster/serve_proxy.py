"""The protocol of Ray's proxies: `serve.body_timeout` is unknown there, so that its default holds for every head."""

from __future__ import annotations

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from r4t.config import Serve
from r4t.serving.patience import patient_protocol

SECONDS = Serve().body_timeout
Patient = patient_protocol(SECONDS, AutoHTTPProtocol)
