"""The number of partitions: state by the partition it belongs to, and growing it when nothing is in flight.

    python -m shared.partitions wait     until the stages have done all there is, with ingestion stopped
    python -m shared.partitions 24       then, with all services stopped

State topics grow first, then all state moves to the partition that its key has now, in one transaction, and then the
rest of the topics grows, raw-logs last. So wherever it is cut off, running it again ends it, and until then the topics
disagree, which no start accepts.
"""

import sys
import threading
import time
from typing import Final, NamedTuple

from shared import kafka, logs
from shared.config import Settings, load
from shared.errors import ConfigurationError, SluiceError
from shared.topics import CHAIN, GROUPS, STATE_TOPICS, key_of_state, partition_of

STAGES: Final = ("standardization", "processing")  # whose work depends on which partition a key is on
QUIET_S: Final = 2.0  # nothing may be written for so long
WAIT_S: Final = 600.0
MOST: Final = 1_000
_PATIENCE_S: Final = 10.0

log = logs.logger("partitions")


class InFlightError(SluiceError):
    """Something still runs, or waits to be processed; the message says what, and what to do."""


class StateRecord(NamedTuple):
    """The last value of a key of a state topic."""

    topic: str  # our name of it
    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int


def states(settings: Settings, topics: kafka.Topics, stopping: threading.Event) -> list[StateRecord]:
    """All that the state topics hold now, in the order of the last changes. Raises KafkaUnavailableError."""
    names = {settings.topic(name): name for name in STATE_TOPICS}
    counts = topics.partitions(list(names))
    places = [(full, partition) for full, count in counts.items() for partition in range(count)]
    last: dict[tuple[str, int, bytes], StateRecord] = {}
    for message in kafka.read_to_end(settings, topics, places, stopping):
        key, value = message.key(), message.value()
        if key is None:
            continue
        place = (names[message.topic()], message.partition(), key)
        last.pop(place, None)
        if value is not None:
            last[place] = StateRecord(*place, value, message.timestamp()[1])
    return sorted(last.values(), key=lambda record: record.timestamp_ms)


def grow(settings: Settings, count: int, stopping: threading.Event) -> int:
    """Give every topic of the chain `count` partitions; returns how many keys of state have moved.

    Services have to be stopped. Raises InFlightError, ConfigurationError where a topic has more, KafkaUnavailableError.
    """
    topics = kafka.Topics(settings, "partitions")
    counts = topics.partitions([settings.topic(name) for name in CHAIN])
    most = max(counts, key=lambda name: counts[name])
    if counts[most] > count:
        raise ConfigurationError(f"{most} has {counts[most]} partitions already: their number can grow, never shrink")
    _check_idle(settings, topics, counts)
    topics.grow({settings.topic(name): count for name in STATE_TOPICS})
    moved = _move(settings, topics, count, stopping)
    for name in CHAIN:
        topics.grow({settings.topic(name): count})
    return moved


def _check_idle(settings: Settings, topics: kafka.Topics, counts: dict[str, int]) -> None:
    """Raise InFlightError unless the stages are stopped, and have done all there was, and nobody writes."""
    for group in STAGES:
        if members := topics.members(group):
            raise InFlightError(
                f"{group} is running ({members} members of its group): stop the services, in the order of the flow; "
                "one that was killed is forgotten after its session time-out"
            )
        if waiting := _undone(settings, topics, group):
            raise InFlightError(
                f"{len(waiting)} partitions hold what {group} has not done yet, such as {waiting[0]}: start it, stop "
                f"ingestion alone, wait (python -m shared.partitions wait), then stop {group}"
            )
    places = [(settings.topic(name), n) for name in CHAIN for n in range(counts[settings.topic(name)])]
    before = topics.ends(places)
    time.sleep(QUIET_S)
    written = sorted({place[0] for place, end in topics.ends(places).items() if end != before[place]})
    if written:
        raise InFlightError(f"somebody writes to {', '.join(written)}: stop ingestion, and any producer of your own")


def _undone(settings: Settings, topics: kafka.Topics, group: str) -> list[kafka.Place]:
    """The partitions that hold a message which the group has not committed."""
    counts = topics.partitions([settings.topic(name) for name in GROUPS[group]])
    places = [(name, partition) for name, count in counts.items() for partition in range(count)]
    committed = topics.committed(group, places, _PATIENCE_S)
    ends = topics.ends(places)
    asked = {place: committed.get(place, 0) for place, end in ends.items() if committed.get(place, 0) < end}
    # up to the end there may be nothing but markers of transactions
    firsts = kafka.first_messages(settings, "partitions", asked, _PATIENCE_S, threading.Event()) if asked else {}
    return [place for place in asked if place not in firsts or firsts[place].timestamp_ms is not None]


def wait(settings: Settings, seconds: float = WAIT_S) -> None:
    """Until the stages have done all there is, one after the other. Raises InFlightError when that takes too long."""
    topics = kafka.Topics(settings, "partitions")
    until = time.monotonic() + seconds
    for group in STAGES:
        while waiting := _undone(settings, topics, group):
            if time.monotonic() > until:
                raise InFlightError(f"{group} has not done all within {seconds:.0f} s: {len(waiting)} partitions wait")
            time.sleep(0.5)


def _move(settings: Settings, topics: kafka.Topics, count: int, stopping: threading.Event) -> int:
    """Put all state on the partition that its key has among `count`, all of it or nothing."""
    records = states(settings, topics, stopping)
    owner = {record: _owner(record, count) for record in records}
    moving = [record for record in records if owner[record] != record.partition]
    if not moving:
        return 0
    writer = kafka.Transactions(settings, "partitions", "partitions", timeout_ms=60_000)
    if not writer.prepare(stopping):
        raise InFlightError("stopped before the state was moved: run it again")
    # what is there already came later, so it stays last: the order of the last changes is that of the topic
    arriving = {(record.topic, owner[record]) for record in moving}
    writer.begin()
    for record in records:
        full, partition = settings.topic(record.topic), owner[record]
        if record.partition != partition:
            writer.send(full, None, record.key, record.partition)
        if (record.topic, partition) in arriving:
            writer.send(full, record.value, record.key, partition)
    writer.commit()
    writer.discard()
    return len(moving)


def _owner(record: StateRecord, count: int) -> int:
    key = key_of_state(record.topic, record.key)
    return record.partition if key is None else partition_of(key, count)


def main() -> int:
    """Entry point."""
    settings = load(Settings)
    logs.configure("partitions", settings.log_level, settings.log_format)
    match sys.argv[1:]:
        case ["wait"]:
            wait(settings)
            log.info("the stages have done all there is")
        case [number] if number.isdigit() and 0 < int(number) <= MOST:
            moved = grow(settings, int(number), threading.Event())
            log.info("partitions have grown", partitions=int(number), state_moved=moved)
        case _:
            sys.stderr.write(f"usage: python -m shared.partitions wait | NUMBER, from 1 to {MOST}\n")
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SluiceError as problem:
        sys.stderr.write(f"partitions: {problem}\n")
        sys.exit(1)
