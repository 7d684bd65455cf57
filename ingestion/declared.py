"""What SOURCES_FILE declares: sources by name, each of a kind; checked as a whole at the start.

sources:
  web-1:
    kind: tail
    path: /var/log/nginx/access.log
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.config import KIB, MIB, Settings
from shared.declarations import content_of, decoded, read
from shared.errors import ConfigurationError

SOURCES_MAX: Final = 100  # each that reads by itself has a thread and a producer
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_TOKEN_HASH: Final = re.compile(r"sha256:[0-9A-Fa-f]{64}")
_EMPTY_HASH: Final = f"sha256:{hashlib.sha256().hexdigest()}"
_CONTENT_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;[^\x00-\x1f]*)?")

Key = Literal["source", "host", "round-robin"]


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name has up to 100 letters, digits and . _ -")
    return value


def _content_type(value: str) -> str:
    if not _CONTENT_TYPE.fullmatch(value) or len(value) > 500:
        raise ValueError("a content type is like text/x-access-log")
    return value


def _pattern(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("a path, or a pattern of paths such as /var/log/app/*.log, is needed")
    return value


Name = Annotated[str, AfterValidator(_name)]


def _token_hash(value: str) -> str:
    if not _TOKEN_HASH.fullmatch(value):
        raise ValueError("the hash of a token is sha256: and 64 hex digits, as ./sluice token makes it")
    if value.lower() == _EMPTY_HASH:
        raise ValueError("this is the hash of an empty token, which everybody has; ./sluice token makes another")
    return value.lower()


def _topic(value: str) -> str:
    if not _TOPIC.fullmatch(value) or value in (".", ".."):
        raise ValueError("a topic's name has up to 249 letters, digits and . _ -")
    return value


ContentType = Annotated[str, AfterValidator(_content_type)]
Pattern = Annotated[str, AfterValidator(_pattern)]
TokenHash = Annotated[str, AfterValidator(_token_hash)]
Rate = Annotated[float, Field(gt=0, le=1e12)]


class _Source(BaseModel):
    """What every kind has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: Key = Field(
        default="source",
        description="What the messages of raw-logs are keyed by, and so what stays in order: the source; each host, "
        "beside others; or nothing, so that a source too hot for one partition uses all.",
    )


class Tail(_Source):
    """Files that are followed as they grow."""

    kind: Literal["tail"]
    path: Pattern
    exclude: list[Pattern] = []
    start: Literal["beginning", "end"] = Field(
        default="beginning", description="Where to begin in files that are there when the source is first read."
    )
    format: Literal["auto", "ndjson", "text"] = "auto"
    content_type: ContentType | None = Field(default=None, description="Of lines that are text.")
    partial_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=86_400,
        description="A line without its end is given out when it has grown no more for so long.",
    )
    rotated_seconds: float = Field(
        default=10.0,
        ge=0.1,
        le=86_400,
        description="A file that was renamed or removed is let go when it has grown no more for so long.",
    )
    line_bytes: int = Field(
        default=16 * MIB, ge=MIB, le=64 * MIB, description="A line is cut at so many bytes, and goes on as another."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.content_type is not None and self.format == "ndjson":
            raise ValueError("content_type is of text; remove it, or let format be text or auto")
        return self


class Files(_Source):
    """Files that are read once each."""

    kind: Literal["file"]
    path: Pattern
    exclude: list[Pattern] = []
    format: Literal["auto", "json", "ndjson", "csv", "tsv", "text"] = "auto"
    content_type: ContentType | None = Field(default=None, description="Of lines that are text.")
    settle_seconds: float = Field(
        default=2.0, ge=0.0, le=86_400, description="A file is read when it has not changed for so long."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.content_type is not None and self.format not in ("text", "auto"):
            raise ValueError("content_type is of text; remove it, or let format be text or auto")
        return self


class Syslog(_Source):
    """Syslog messages, over UDP and TCP."""

    kind: Literal["syslog"]
    listen: str = Field(description="Address and port, such as 127.0.0.1:5514 or [::1]:5514.")
    protocols: list[Literal["udp", "tcp"]] = Field(default=["udp", "tcp"], min_length=1, max_length=2)
    content_type: ContentType | None = None
    message_bytes: int = Field(
        default=64 * KIB,
        ge=480,
        le=512 * KIB,
        description="A message over TCP is cut at so many bytes, and goes on as another.",
    )
    connections_max: int = Field(default=200, ge=1, le=5_000)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if (
            not host
            or (":" in host) != (host[:1] + host[-1:] == "[]")
            or not _PORT.fullmatch(port)
            or int(port) > 65_535
        ):
            raise ValueError("an address and a port are needed, such as 127.0.0.1:5514, 0.0.0.0:5514 or [::1]:5514")
        try:
            host.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"{host} is no name of a host: {error}") from error
        return value


class KafkaTopic(_Source):
    """A topic of the same Kafka that others write."""

    kind: Literal["kafka"]
    topic: Annotated[str, AfterValidator(_topic)]
    key: Literal["source", "message", "round-robin"] = Field(  # type: ignore[assignment]  # senders are no hosts here
        default="message", description="`message`: the message's own key; those without one use all partitions."
    )
    start: Literal["beginning", "end"] = "beginning"
    content_type: ContentType | None = Field(default=None, description="Instead of the header that messages have.")


class Http(_Source):
    """Pushes: who may send them, and how fast."""

    kind: Literal["http"]
    tokens: list[TokenHash] = Field(default=[], max_length=100)
    open: bool = Field(default=False, description="Whether its pushes need no token, though those of others do.")
    requests_per_second: Rate | None = None
    bytes_per_second: Rate | None = None

    @model_validator(mode="after")
    def _can_be_pushed(self) -> Self:
        if self.open == bool(self.tokens):
            raise ValueError("it has either tokens (./sluice token makes one) or `open: true`")
        return self


Kind = Annotated[Tail | Files | Syslog | KafkaTopic | Http, Field(discriminator="kind")]


class Declared(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    node: Name | None = Field(
        default=None,
        description="Who the places in files belong to; without it the data folder. For where that folder is not kept.",
    )
    sources: dict[Name, Kind] = Field(default={}, max_length=SOURCES_MAX)

    @model_validator(mode="after")
    def _tokens_tell_sources(self) -> Self:
        known: dict[str, str] = {}
        for name, source in self.sources.items():
            for token in source.tokens if isinstance(source, Http) else ():
                if token in known:
                    raise ValueError(f"sources.{name} has a token that {known[token]} has: a token tells the source")
                known[token] = name
        return self


def key_of(key: Key, source: str, host: str) -> bytes | None:
    """The key of messages, by what is declared: the source, a host of it, or none, for each partition in turn."""
    match key:
        case "source":
            return source.encode()
        case "host":
            return f"{source}/{host}".encode()
        case "round-robin":
            return None


def declared_in(settings: Settings) -> Declared:
    """What is declared; nothing without SOURCES_FILE. Raises ConfigurationError that tells file and line."""
    file = settings.sources_file
    if not file:
        return Declared()
    try:
        content = content_of(Path(file))
    except OSError as error:
        raise ConfigurationError(
            f"SOURCES_FILE: {file} can't be read: {error.strerror}; correct the setting or the file"
        ) from error
    return parsed(content, file)


def parsed(content: bytes, file: str) -> Declared:
    """What a file's bytes declare; `file` is what errors call it. Raises DeclarationError."""
    return read(decoded(content, file), file, Declared).model
