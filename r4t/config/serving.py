"""Keys of the endpoint that `r4t serve` opens."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from r4t.config.section import Section


class Serve(Section):
    """Engine, replicas and limits of the endpoint."""

    engine: Literal["torch", "onnx", "onnx-int8"] = "torch"  # --lite takes a graph: onnx, or onnx-int8 where it is set
    threads: int = Field(1, ge=1)  # of the engine in each replica
    encoder_path: Path | None = (
        None  # files of an encoder that is in no package; None: encoder.path of a run that is served
    )
    folm: bool = False  # load the run's language model too, in every replica: method r4t_folm
    replicas: int = Field(1, ge=1)  # processes that answer; with max_replicas, the fewest
    max_replicas: int | None = Field(None, ge=1)  # Ray Serve starts up to so many while there is work
    target_ongoing: float = Field(4.0, gt=0)  # requests in a replica at which another one is started
    replica_cpus: float = Field(1.0, ge=0)  # of the cluster's, for each replica
    batch: int = Field(64, ge=1)  # queries that are worked on together
    max_waiting: int = Field(256, ge=1)  # queries in a replica that wait for an answer; more are turned away (429)
    timeout: float = Field(30.0, gt=0)  # seconds until a request that has no answer is given up
    body_timeout: float = Field(10.0, gt=0)  # seconds in which a request must have arrived
    drain: float = Field(30.0, ge=0)  # seconds that requests in flight have once the server is told to stop
    watch: float = Field(2.0, gt=0)  # seconds between two looks for a new version of what is served
    max_body: int = Field(1 << 20, ge=1024)  # bytes
    max_queries: int = Field(64, ge=1, le=1024)  # in one request
    max_k: int = Field(100, ge=1, le=1000)
    max_characters: int = Field(1000, ge=1, le=10_000)  # of a query
    cors_origins: tuple[str, ...] = ()  # pages of other origins that may call, e.g. https://example.com

    @model_validator(mode="after")
    def _fits(self) -> Serve:
        if self.max_waiting < self.max_queries:
            raise ValueError(
                f"max_waiting = {self.max_waiting} could never hold a request of max_queries = {self.max_queries}:"
                " raise the one or lower the other"
            )
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas = {self.max_replicas} is less than replicas = {self.replicas}")
        return self
