"""Every route of the three services answers as its OpenAPI says, whatever is sent: schemathesis makes it up.

What is sent follows from SLUICE_SEED, which is printed; each finding comes with the request that shows it again. What
schemathesis can't send is in test_hostile.py.
"""

import csv
import io
import os
import random
import re
import uuid
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.config import GenerationConfig
from schemathesis.core.failures import AcceptedNegativeData, Failure, FailureGroup
from schemathesis.core.result import Err
from schemathesis.openapi.checks import RejectedPositiveData

from native.fleet import COLUMNS, Plan, rows_of
from native.kafka import Broker
from tests.integration.stack import Stack

pytestmark = pytest.mark.kafka

EXAMPLES: Final = 4  # at random of what is allowed, and of what is not, for every route
BOUNDS: Final = 12  # of the cases that try the bounds of its parameters, and other methods, types and headers
BROKEN: Final = b'{"source":"till","api":"sales","status":"SUC'
MODES: Final = list(GenerationMode)
TEXTS: Final = ("application/x-ndjson", "application/x-protobuf", "text/csv")
ANY: Final = GenerationConfig()
BOUNDED: Final = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
BULK: Final = "Malformed bulk request"
NOT_ACCEPTED: Final = {
    ("POST /dead-letters/replay", "name a filter"): "one of several parameters is needed",
    ("POST /dead-letters/resolve", "name a filter"): "likewise",
    ("POST /ingest", "there is no entry in it"): "text, of which the schema can't say that it holds rows or lines",
    ("POST /ingest", "Content-Encoding is"): "a header's text; another encoding has to be refused",
    ("POST /ingest", "line 1: "): "nor that the columns of a header have names",
    ("POST /v1/logs", "no ExportLogsServiceRequest"): "protobuf, and what it says in JSON, is described by OTLP itself",
    ("POST /loki/api/v1/push", "neither snappy nor"): "protobuf in snappy",
    ("POST /loki/api/v1/push", "bytes unpacked; at most"): "whose first bytes say how large it is",
    ("GET /api/v1/gpus/{uuid}/telemetry", "agg: it needs a step"): "one parameter needs another",
    ("GET /api/v1/gpus/{uuid}/telemetry", "step: at most 366 days"): "numbers of several units",
    ("GET /api/v1/gpus/{uuid}/telemetry", "end_time: it is before"): "one parameter bounds another",
    ("POST /standardization/preview", "the body"): "its Content-Type says what it has to be: one line, or one object",
    ("POST /standardization/preview", "Not a usable mapping"): "a mapping is YAML in a text",
    ("POST /_bulk", BULK): "text in which actions and documents take turns",
    ("PUT /_bulk", BULK): "likewise",
    ("POST /{index}/_bulk", BULK): "likewise",
    ("PUT /{index}/_bulk", BULK): "likewise",
}
"""What may be refused though the schema allows it: the route, words of the answer, why."""


@pytest.fixture(scope="module")
def stack(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that has one of everything."""
    folder = tmp_path_factory.mktemp("openapi")
    with Stack(broker, folder, f"t{uuid.uuid4().hex[:8]}-") as running:
        rows = io.StringIO()
        csv.writer(rows).writerows([COLUMNS, *rows_of(Plan(hosts=2, gpus=4))])
        runs = [
            running.push(BROKEN),
            running.push(rows.getvalue().encode(), kind="text/csv"),
            running.get("ingestion", "/ingest/trigger"),
        ]
        for taken in runs:
            running.receipt(taken.raise_for_status().json()["run_id"])
        yield running
        for stream in running.get("ingestion", "/ingest/streams").json()["streams"]:
            running.client.delete(f"{running.urls['ingestion']}/ingest/streams/{stream['id']}")


@pytest.fixture(scope="module")
def known(stack: Stack) -> dict[str, str]:
    """A value of each parameter of a path that leads somewhere."""

    def first(path: str, name: str, key: str) -> str:
        return str(stack.get("processing", path).raise_for_status().json()[name][0][key])

    return {
        "record_id": first("/analytics/recent", "records", "record_id"),
        "run_id": first("/runs", "runs", "run_id"),
        "letter_id": first("/dead-letters", "dead_letters", "id"),
        "host": first("/api/v1/hosts", "hosts", "host"),
        "uuid": first("/api/v1/gpus", "gpus", "uuid"),
    }


@schemathesis.serializer(*TEXTS)
def as_it_is(_: object, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


def meant(case: Case[Any], known: dict[str, str], *, found: bool) -> None:
    """Let what the schema allows be what a client would send, where the schema can't say it: else all is refused."""
    case.query.pop("cursor", None)  # opaque
    for name in {"from", "to", "start_time", "end_time"} & case.query.keys():
        case.query[name] = f"2026{str(case.query[name])[4:]}"  # the store's times are those of four centuries
    if found:
        case.path_parameters.update({name: known[name] for name in case.path_parameters.keys() & known.keys()})
    body: Any = case.body
    match case.operation.label, body:
        case "POST /ingest/streams", dict():
            case.body = {**body, "file": "logs.json", "rate": 5.0, "start_at": None}
        case "POST /alerts/webhook", {"alerts": list(alerts)}:
            at = {"startsAt": "2026-01-05T10:00:00Z", "endsAt": "2026-01-05T11:00:00Z"}
            case.body = {**body, "alerts": [alert | {name: at[name] for name in at.keys() & alert} for alert in alerts]}


def expected(case: Case[Any], failure: Failure, answer: str) -> bool:
    if isinstance(failure, AcceptedNegativeData):
        wrong = {part for part in ("query", "body", "header", "path") if re.search(rf"\b{part}", str(failure))}
        if case.media_type in TEXTS:  # what is no text in JSON is one when it is sent
            wrong.discard("body")
        if "`additionalProperties`" in str(failure):  # a query may hold more than we ask for
            wrong.discard("query")
        return not wrong
    return isinstance(failure, RejectedPositiveData) and any(
        case.operation.label == label and words in answer for label, words in NOT_ACCEPTED
    )


@pytest.mark.parametrize("service", ["ingestion", "standardization", "processing"])
def test_every_route_answers_as_its_openapi_says(stack: Stack, known: dict[str, str], service: str) -> None:
    # in CI always the same, so that what it finds there comes of the change that is tested
    seeded = int(os.environ.get("SLUICE_SEED") or (1 if os.environ.get("CI") else random.randrange(2**32)))
    print(f"\nSLUICE_SEED={seeded}")  # noqa: T201 - shown when the test fails
    schema = schemathesis.openapi.from_url(f"{stack.urls[service]}/openapi.json")
    chosen = random.Random(seeded)
    findings: dict[tuple[str, str, int], str] = {}
    sent = 0

    def look(case: Case[Any]) -> None:
        nonlocal sent
        sent += 1
        if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
            meant(case, known, found=sent % 2 == 0)
        answer = case.call(timeout=30)
        try:
            case.validate_response(answer)
        except FailureGroup as group:
            text = answer.content.decode(errors="replace")
            for failure in group.exceptions:
                if not expected(case, failure, text):
                    findings.setdefault(
                        (case.operation.label, type(failure).__name__, answer.status_code),
                        f"{failure}\n{case.as_curl_command()}\n{text[:500]}",
                    )

    for result in schema.get_all_operations():
        assert not isinstance(result, Err), result
        operation = result.ok()
        bounds = list(schema.iter_coverage_cases(operation, generation_modes=MODES, generation_config=ANY))
        for case in chosen.sample(bounds, min(BOUNDS, len(bounds))):
            look(case)
        for mode in MODES:
            looked = seed(seeded)(BOUNDED(given(case=operation.as_strategy(generation_mode=mode))(look)))
            with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
                looked()  # unsatisfiable: there is nothing that could be wrong
    assert not findings, f"{len(findings)} findings in {sent} requests\n\n" + "\n\n".join(
        f"{key}\n{told}" for key, told in findings.items()
    )
    assert stack.processes[service].poll() is None
