"""A file's entries as a stream sends them: from a place on, hosts in another order, times rewritten.

    file > entries > [from start_at on] > [hosts shuffled, block by block] > [times rewritten] > lanes

The same file, stream and pass give the same entries in the same order, so that a stream goes on after a restart where
it was.
"""

import random
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ingestion.entries import Entries, Large, MalformedBodyError

BLOCK: Final = 5_000  # entries within which hosts are shuffled

_HOST: Final = ("hostname", "host", "host_name", "host.name", "source")
_DEVICE: Final = ("uuid", "hw_id", *_HOST)
_TIME: Final = ("timestamp", "time", "ts")


class Spec(msgspec.Struct, frozen=True):
    """What a stream replays, and how."""

    file: str
    rate: float  # entries per second
    workers: int = 1  # partitions that it writes to at once; what belongs to one device stays on one
    loop: bool = False  # begins again at the end of the file
    shuffle_hosts: bool = False
    start_at: str | None = None  # the number of an entry (the first is 1) or an RFC 3339 time; later passes begin at 1
    timestamps: Literal["now", "keep"] = "now"
    source: str | None = None


class Item(NamedTuple):
    """An entry, and what it says where it is an object and somebody has to know."""

    entry: bytes
    fields: dict[str, Any] | None

    def of(self, names: Iterable[str]) -> Any:
        """The value of the first of these keys that it has, whatever their case."""
        if self.fields is None:
            return None
        by_name = {name.lower(): value for name, value in self.fields.items()}
        return next((by_name[name] for name in names if by_name.get(name) not in (None, "")), None)


def items(found: Entries, spec: Spec, seed: str, begins: bool) -> Iterator[Item]:
    """The entries of one pass in their order; `begins`: it is the stream's first pass, which start_at is about.

    Raises MalformedBodyError: an entry too large for a frame, no entry at or after start_at.
    """
    decoded = spec.shuffle_hosts or spec.timestamps == "now" or spec.workers > 1 or spec.start_at is not None
    all_of_it = _items(found, decoded)
    from_there = _from(all_of_it, spec.start_at) if begins and spec.start_at is not None else all_of_it
    return _shuffled(from_there, seed) if spec.shuffle_hosts else from_there


def stamped(item: Item, now: str) -> bytes:
    """The entry with this as its time, where it has one."""
    if item.fields is None:
        return item.entry
    for name in item.fields:
        if name.lower() in _TIME:
            item.fields[name] = now
            return _encode(item.fields)
    return item.entry


def lane(item: Item, place: int, lanes: int) -> int:
    """Which of the lanes an entry takes: its device's, or any in turn where it names none."""
    if lanes == 1:
        return 0
    device = item.of(_DEVICE)
    return (zlib.crc32(str(device).encode()) if device is not None else place) % lanes


def check_start(start_at: str) -> None:
    """Raises ValueError unless it is a number from 1 on or a time."""
    if start_at.isdigit():
        if len(start_at) > _DIGITS_MAX or int(start_at) < 1:
            raise ValueError(f"the first entry is number 1, and numbers have at most {_DIGITS_MAX} digits")
    elif _time_of(start_at) is None:
        raise ValueError("a number of an entry (the first is 1) or an RFC 3339 time is needed")


_DIGITS_MAX: Final = 18
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def _items(found: Entries, decoded: bool) -> Iterator[Item]:
    for some in found:
        if isinstance(some, Large):
            raise MalformedBodyError(f"byte {some.offset}: an entry of {some.size} bytes is too large for a stream")
        for entry in some:
            yield Item(entry, _fields(entry) if decoded else None)


def _fields(entry: bytes) -> dict[str, Any] | None:
    try:
        fields = _decode(entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # it goes as it is, and standardization says what it is
    return fields if isinstance(fields, dict) else None


def _from(found: Iterator[Item], start_at: str) -> Iterator[Item]:
    if start_at.isdigit():
        yield from islice(found, int(start_at) - 1, None)
        return
    wanted = _time_of(start_at)
    assert wanted is not None
    for item in found:
        at = _time_of(item.of(_TIME))
        if at is not None and at >= wanted:
            yield item
            yield from found
            return


def _time_of(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _shuffled(found: Iterator[Item], seed: str) -> Iterator[Item]:
    """Block by block, all of a host together, and the hosts in an order that the seed decides."""
    for number in range(1 << 62):
        by_host: dict[str, list[Item]] = {}
        for item in islice(found, BLOCK):
            by_host.setdefault(str(item.of(_HOST)), []).append(item)
        if not by_host:
            return
        hosts = list(by_host)
        random.Random(f"{seed}/{number}").shuffle(hosts)  # noqa: S311 - no secret
        for host in hosts:
            yield from by_host[host]
