"""What can be done with a dead letter: the events that close it, and the message that a replay of it is. Pure.

open --replay--> replayed      the entry goes back to the topic where it was read, in the event's own transaction
open --resolve-> resolved      nothing more comes of it
"""

from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from processing.rows import identity_of
from shared.errors import SluiceError
from shared.frames import entries
from shared.records import DeadLetter
from shared.topics import (
    H_CHUNK,
    H_CONTENT_TYPE,
    H_LINE,
    H_ORIGIN,
    H_PUSH,
    H_RUN,
    INGEST_RUNS,
    NDJSON,
    PROCESSED_METRICS,
    RAW_LOGS,
    STANDARDIZED_LOGS,
)


class Action(StrEnum):
    """How a letter is closed; also the state that it is in then."""

    REPLAYED = "replayed"
    RESOLVED = "resolved"


OPEN: Final = "open"


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was done with one letter, on the topic dead-letter-events. A letter has one at most."""

    event_id: str
    letter: str
    entry: str  # the same for two letters of one line, which the sink may write when a crash comes between
    origin: str  # the first record_id
    action: str  # one of Action
    actor: str
    time: str  # RFC 3339, UTC
    run_id: str | None = None
    note: str | None = None
    edited: bool = False


class RefusedError(SluiceError):
    """This can't be done with this letter; the message says why and what could be done."""


class Outgoing(NamedTuple):
    """The message that a replay is, without its value."""

    topic: str  # by our name of it
    key: bytes | None
    partition: int | None  # None: the key's
    headers: tuple[tuple[str, bytes | None], ...]


_TOPICS: Final = (RAW_LOGS, STANDARDIZED_LOGS, PROCESSED_METRICS, INGEST_RUNS)
_DROPPED: Final = {H_CHUNK, H_PUSH, H_ORIGIN, H_LINE}
JSON: Final = b"application/json"
_MAX_HEADER: Final = 1_024


def origin_of(letter: DeadLetter) -> str:
    """Where the entry first lay."""
    return letter.origin or letter.record_id


def entry_of(letter: DeadLetter, letter_id: str) -> str:
    """What only one replay may be made of."""
    line = dict(letter.headers).get(H_LINE)
    return line.decode(errors="replace") if line else letter_id


def outgoing(letter: DeadLetter, topic: str, *, edited: bool, content_type: str | None = None) -> Outgoing:
    """The message that replays this letter, which was read from `topic`, our name of it. Raises RefusedError.

    It goes back to the topic and partition that the entry was read from, with its key and headers. On raw-logs it gets
    a new record_id, so it carries the first one as its origin; a line of the other topics holds its record_id itself.
    Edited bytes come with a content type of their own.
    """
    if topic not in _TOPICS:
        raise RefusedError(f"an entry of {topic} can't be sent again; resolve the letter")
    if letter.reason.startswith("chunk_") and not edited:
        raise RefusedError(
            "its bytes are one chunk of a message that never became whole; send the whole entry as an edit, or resolve "
            "the letter"
        )
    own = [(name, value) for name, value in letter.headers if name not in _DROPPED]
    if topic == RAW_LOGS:
        if edited:
            kind = content_type.encode() if content_type else _kind_of_one(dict(own).get(H_CONTENT_TYPE))
            kept = [(n, v) for n, v in own if n != H_CONTENT_TYPE and len(v or b"") <= _MAX_HEADER]
            own = [*kept, *([(H_CONTENT_TYPE, kind)] if kind else [])]
        if letter.run_id is not None:  # its header may have been too large a company to be kept
            own = [*((n, v) for n, v in own if n != H_RUN), (H_RUN, letter.run_id.encode())]
        own.append((H_ORIGIN, origin_of(letter).encode()))
    key = letter.key if letter.key is not None or topic == RAW_LOGS else letter.record_id.encode()
    return Outgoing(topic, key, letter.partition if letter.partition >= 0 else None, tuple(own))


def _kind_of_one(content_type: bytes | None) -> bytes | None:
    """The content type of one entry out of a message of this one: a line of a frame may have several lines now."""
    return JSON if content_type is not None and content_type.startswith(NDJSON.encode()) else content_type


def check_value(letter: DeadLetter, to: Outgoing, value: bytes, *, edited: bool) -> None:
    """Raise RefusedError unless this value is one entry, and, edited, still the same one."""
    kind = dict(to.headers).get(H_CONTENT_TYPE)
    number = len(entries(value, kind.decode(errors="replace") if kind else None))
    if number != 1:
        raise RefusedError(f"a letter is replayed as one entry, and these bytes are {number}; push them instead")
    if to.topic == RAW_LOGS or not edited:
        return
    # the line names its entry itself: under another name it would be counted as another
    before, after = identity_of(letter.value), identity_of(value)
    if before.record_id is not None and before != after:
        raise RefusedError(f"an edited line of {to.topic} must keep its record_id, run_id and origin")
