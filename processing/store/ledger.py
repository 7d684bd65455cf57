"""The ledger: which offsets are in the store, written before the rows, so that a crash is repeated and not guessed.

A batch is opened (its exact ranges and token are stored), inserted, closed. What is found open after a crash is read
again from Kafka, exactly these ranges, and inserted under the same token: tables that have it change nothing, the
others take it. See docs/adr/0002-ledger.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

Positions = dict[tuple[str, int], int]
"""The next offset to read, by topic id and partition."""


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive offsets of a partition, both ends included.

    The topic id is Kafka's own: a topic deleted and made anew has another.
    """

    topic_id: str
    topic: str
    partition: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes into the store in one go. Numbers count up from 1; the token is unique in the store's life."""

    number: int
    token: str
    ranges: tuple[Range, ...]
    stored_at_ns: int  # since the Unix epoch
    closed: bool
    windows_block: int = field(default=-1, compare=False)
    """The newest block of the windows before this batch, by which the store tells whether its own is there; -1 where
    that is not known. The store fills it in."""


def advanced(positions: Mapping[tuple[str, int], int], ranges: Iterable[Range]) -> Positions:
    """Positions after these ranges; a position never goes back."""
    after = dict(positions)
    for range_ in ranges:
        key = (range_.topic_id, range_.partition)
        after[key] = max(after.get(key, 0), range_.last + 1)
    return after


class _Entry(msgspec.Struct):
    number: int
    closed: bool
    token: str
    stored_at_ns: int
    ranges: list[Range]
    positions: list[tuple[str, int, int]]
    windows_block: int


def encode(batch: Batch, positions: Positions) -> bytes:
    """The ledger's line for a batch, with the positions after it."""
    return msgspec.json.encode(
        _Entry(
            batch.number,
            batch.closed,
            batch.token,
            batch.stored_at_ns,
            list(batch.ranges),
            [(topic_id, partition, offset) for (topic_id, partition), offset in sorted(positions.items())],
            batch.windows_block,
        )
    )


def decode(row: Mapping[str, Any]) -> tuple[Batch, Positions]:
    """Read a row of the ledger back."""
    ranges = msgspec.json.decode(row["ranges"], type=tuple[Range, ...])
    positions = msgspec.json.decode(row["positions"], type=list[tuple[str, int, int]])
    batch = Batch(row["number"], row["token"], ranges, row["stored_at_ns"], row["closed"], row["windows_block"])
    return batch, {(topic_id, partition): offset for topic_id, partition, offset in positions}
