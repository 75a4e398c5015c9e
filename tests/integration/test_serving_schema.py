"""Schemathesis on the endpoint's own OpenAPI document: no 5xx, and nothing that the document does not say."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from serving_fixtures import application, get
from support import needed

from r4t.config import Serve
from r4t.serving.openapi import document
from r4t.serving.version import Version

schemathesis = needed("schemathesis")
positive_data_acceptance = needed("schemathesis.specs.openapi.checks").positive_data_acceptance
SETTINGS: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
BEYOND = [positive_data_acceptance]  # no schema says that a vector of zeros or a method of another server is refused
LIMITS = Serve(max_queries=8, max_k=20, max_characters=300)


def test_every_answer_is_as_the_document_says(version: Version) -> None:
    """Without schemathesis' own plugin, which knows another pytest."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", application(version, LIMITS))
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {operation.path for operation in operations} == {
        "/v1/retrieve", "/v1/methods", "/v1/run", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    seen: Counter[int] = Counter()
    for operation in operations:
        for mode in schemathesis.GenerationMode:

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=60 if operation.method == "post" else 5, **SETTINGS)
            def check(case: Any) -> None:
                seen[case.call_and_validate(excluded_checks=BEYOND).status_code] += 1

            with contextlib.suppress(Unsatisfiable):  # an operation without parameters has no wrong ones
                check()
    assert seen[200] > 5
    assert seen[422] > 5


def test_the_document_says_this_servers_limits(version: Version) -> None:
    said = get(application(version, LIMITS), "/openapi.json").json()
    request = said["components"]["schemas"]["RetrieveRequest"]["properties"]
    assert request["k"]["maximum"] == 20
    assert request["queries"]["maxItems"] == 8
    assert request["query"]["maxLength"] == 300
    assert request["vector"]["minItems"] == request["vector"]["maxItems"] == version.dim
    assert "securitySchemes" not in said["components"]
    keyed = document(LIMITS, 16, keyed=True)
    assert keyed["paths"]["/v1/retrieve"]["post"]["security"]
