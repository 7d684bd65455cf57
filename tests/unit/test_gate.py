"""Who may push: by token, as which source, how fast."""

import base64
import hashlib

import pytest
from fastapi import Request

from ingestion.declared import Declared, Http, parsed
from ingestion.gate import Gate, Sender
from shared.errors import ConfigurationError
from shared.service import ProblemError


def hashed(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def request(authorization: str | None = None) -> Request:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    return Request({"type": "http", "method": "POST", "path": "/ingest", "headers": headers, "client": ("10.0.0.9", 1)})


def gate_of(clock: Clock | None = None, **sources: Http) -> Gate:
    return Gate(Declared(sources=dict(sources)), clock or Clock())


def refusal(gate: Gate, authorization: str | None = None, named: str | None = None) -> ProblemError:
    with pytest.raises(ProblemError) as found:
        gate.admit(request(authorization), named)
    return found.value


SHOP = Http(kind="http", tokens=[hashed("s3cret"), hashed("older")], key="host")
CARELESS = Http.model_construct(
    kind="http", tokens=["sha256:" + hashlib.sha256(b"").hexdigest()]
)  # no declaration would do
BANK = Http(kind="http", tokens=[hashed("b4nk")])
LAB = Http(kind="http", open=True)


def test_without_declared_tokens_everybody_may_push_as_whom_they_say() -> None:
    for gate in (gate_of(), gate_of(lab=LAB)):
        assert gate.admit(request(), None) == Sender(None, "10.0.0.9", None)
        assert gate.admit(request("Bearer anything"), "shop") == Sender("shop", "10.0.0.9", None)
        assert gate.admit(request("rubbish"), "lab").source == "lab"


@pytest.mark.parametrize(
    ("authorization", "source"),
    [
        ("Bearer s3cret", "shop"),
        ("bearer  older ", "shop"),
        ("Bearer b4nk", "bank"),
        ("ApiKey b4nk", "bank"),
        ("Basic " + base64.b64encode(b"anybody:s3cret").decode(), "shop"),
    ],
)
def test_a_token_tells_the_source(authorization: str, source: str) -> None:
    gate = gate_of(shop=SHOP, bank=BANK)
    found = gate.admit(request(authorization), None)
    assert (found.source, found.declared) == (source, gate.sources[source])
    assert gate.admit(request(authorization), source).keyed_by == gate.sources[source].declared.key
    other = refusal(gate, authorization, "lab")
    assert (other.status, source in other.detail) == (403, True)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer ",
        "Basic " + base64.b64encode(b"anybody:").decode(),
        "Bearer",
        "Bearer S3CRET",
        "Bearer s3cret2",
        "s3cret",
        "Basic s3cret",
        "Basic \xff",
        "Digest s3cret",
    ],
)
def test_a_push_without_its_token_is_refused_and_told_how_to_send_one(authorization: str | None) -> None:
    sources = Declared.model_construct(sources={"shop": SHOP, "bank": BANK, "lab": LAB, "careless": CARELESS})
    gate = Gate(sources, Clock())
    for named in (None, "shop", "unknown"):
        refused = refusal(gate, authorization, named)
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"].startswith('Bearer realm="sluice"')
        assert "s3cret" not in refused.detail
    if authorization is None:
        assert gate.admit(request(), "lab").source == "lab"
    else:
        assert refusal(gate, authorization, "lab").status == 401


def test_requests_beyond_the_limit_wait_as_long_as_they_are_told() -> None:
    clock = Clock()
    gate = gate_of(clock, shop=Http(kind="http", tokens=[hashed("s")], requests_per_second=2), bank=BANK)
    for _ in range(4):  # two seconds' worth at once
        gate.admit(request("Bearer s"), None)
    refused = refusal(gate, "Bearer s")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    gate.admit(request("Bearer b4nk"), None)
    clock.now += 1
    gate.admit(request("Bearer s"), None)
    gate.admit(request("Bearer s"), None)
    assert refusal(gate, "Bearer s").status == 429


def test_bytes_over_the_limit_are_waited_for_by_the_next_requests() -> None:
    clock = Clock()
    gate = gate_of(clock, shop=Http(kind="http", tokens=[hashed("s")], bytes_per_second=100))
    sender = gate.admit(request("Bearer s"), None)
    sender.sent(400)
    sender.sent(600)
    refused = refusal(gate, "Bearer s")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "9")
    clock.now += 9
    gate.admit(request("Bearer s"), None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {kind: http}", ", line 2: sources.a: it has either tokens"),
        (f"a: {{kind: http, open: true, tokens: ['{hashed('x')}']}}", ", line 2: sources.a: it has either tokens"),
        (
            f"a: {{kind: http, tokens: ['{hashed('')}']}}",
            ", line 2: sources.a.tokens.0: this is the hash of an empty token",
        ),
        ("a: {kind: http, tokens: [s3cret]}", ", line 2: sources.a.tokens.0: the hash of a token is sha256:"),
        (f"a: {{kind: http, tokens: ['{hashed('x')}']}}\n  b: {{kind: http, tokens: ['{hashed('x')}']}}", "sources.b"),
    ],
)
def test_what_could_not_be_pushed_to_or_told_apart_is_no_declaration(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        parsed(f"sources:\n  {text}\n".encode(), "s.yaml")
    assert words in str(found.value)
