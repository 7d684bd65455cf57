"""What Kafka knows of the flow, asked every few seconds: each group's lag, open transactions, the broker's clock.

Every service measures all of it, its own part and the others': so the lag of a group is known while all of its
consumers are dead. What can't be measured is absent, never stale: an alert on old figures is worse than none.

    offsets of the groups, ends of the topics > Backlog > first messages, where needed > gauges
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from shared import kafka, logs, metrics
from shared.config import Settings
from shared.errors import KafkaUnavailableError
from shared.kafka import First, Place
from shared.topics import CLOCK, GROUPS, specs

LOOK_S: Final = 5.0
CALL_S: Final = 2.0  # the longest that one question may take
CLOCK_S: Final = 15.0  # how often the broker is asked for its time
READS: Final = 64  # places whose first message is read in one look; the others' turn is the next one
POINTS: Final = 240  # points of an end's history; beyond that every other one goes

log = logs.logger("survey")


class History:
    """When the end of a partition was where, by what was seen of it: the ends in between are interpolated."""

    def __init__(self) -> None:
        self._ends: list[int] = []
        self._times: list[float] = []

    def add(self, end: int, now: float) -> None:
        """An end that has gone back is that of a topic made anew: what was known is of another one."""
        if self._ends and end < self._ends[-1]:
            self._ends.clear()
            self._times.clear()
        if len(self._ends) > 1 and end == self._ends[-1] == self._ends[-2]:
            self._times[-1] = now  # it stands still: the last moment at which it did is what counts
            return
        self._ends.append(end)
        self._times.append(now)
        if len(self._ends) > POINTS:
            del self._ends[1:-1:2], self._times[1:-1:2]

    def written(self, offset: int) -> float | None:
        """About when the message at this offset was written; None for one from before the history, or not written."""
        after = bisect_right(self._ends, offset)
        if after == 0 or after == len(self._ends):
            return None
        before, end = self._ends[after - 1], self._ends[after]
        begun, seen = self._times[after - 1], self._times[after]
        return begun + (seen - begun) * (offset - before) / (end - before)


@dataclass(slots=True)
class Backlog:
    """What one group has not read of one partition.

    The age of its oldest unread message is interpolated from when the end of the partition passed it, which costs
    nothing while group and end move. Where the group stands still, or the history does not reach back so far, the
    message itself is read: once, for it stays the same until the group moves. That also tells messages from the
    markers that transactions leave behind, on which a group that has read everything seems to lag for ever.
    """

    position: int = -1
    stands: bool = False  # whether the group was there at the look before, too
    first: First | None = None  # what a reader gets first from `position` on

    def look(self, position: int) -> None:
        """The group's committed offset, now."""
        self.stands = position == self.position
        if not self.stands:
            self.first = None
        self.position = position

    def place(self, end: int) -> int:
        """The offset of the first message that the group has not read, as far as that is known."""
        return min(end, max(self.position, self.first.offset if self.first else 0))

    def to_read(self, end: int, history: History) -> bool:
        """Whether only reading its first message tells how old it is."""
        at = self.place(end)
        if at >= end or (self.first is not None and self.first.timestamp_ms is not None):
            return False
        return self.stands or history.written(at) is None

    def since(self, end: int, history: History, skew: float) -> float | None:
        """Since when (this machine's clock) its first message has waited; None where that is not known."""
        if self.first is not None and self.first.timestamp_ms is not None:
            return self.first.timestamp_ms / 1000 + skew
        return history.written(self.place(end))


@dataclass(slots=True)
class Hidden:
    """What open transactions hide at the end of one partition: where that begins, and since when it is seen there."""

    stable: int = -1
    since: float = 0.0

    def look(self, stable: int, now: float) -> float:
        """For how long the same offset has been the first hidden one, in seconds."""
        if stable != self.stable:
            self.stable, self.since = stable, now
        return now - self.since


@dataclass(slots=True)
class _Figures:
    """One look's results, by our names of topics."""

    messages: dict[tuple[str, str], int] = field(default_factory=dict)
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    hidden_seconds: dict[str, float] = field(default_factory=dict)


class Survey:
    """A look every few seconds, for as long as it runs; Kafka's absence is waited out."""

    name = "survey"

    def __init__(self, settings: Settings, service: str, reachable: Callable[[], bool]) -> None:
        self._settings = settings
        self._service = service
        self._reachable = reachable
        self._client = f"{service}-{self.name}"
        self._topics = {settings.topic(spec.name): spec.name for spec in specs(1, 1) if spec.name != CLOCK}
        self._histories: dict[Place, History] = {}
        self._backlogs: dict[tuple[str, Place], Backlog] = {}
        self._hidden: dict[Place, Hidden] = {}
        self._skew: float | None = None
        self._measured = True
        self.pending: Mapping[tuple[str, str], int] | None = None  # by group and topic, as last seen; None: not known

    def run(self, stopping: threading.Event) -> None:
        topics = kafka.Topics(self._settings, self._client)
        clock = kafka.Clock(self._settings, self._client)
        asked = -CLOCK_S
        while not stopping.is_set():
            begun = time.monotonic()
            if self._reachable():
                if begun - asked >= CLOCK_S:
                    asked = begun
                    self._tell_skew(clock.skew())
                try:
                    self._tell(self._look(topics, stopping))
                except KafkaUnavailableError as error:
                    self._forget(str(error))
            else:
                self._forget("no broker answers")
                self._tell_skew(None)
                asked = -CLOCK_S
            stopping.wait(max(0.0, begun + LOOK_S - time.monotonic()))
        self._forget("stopping")

    def _look(self, topics: kafka.Topics, stopping: threading.Event) -> _Figures:
        counts = topics.partitions(list(self._topics), CALL_S)
        places = [(name, partition) for name, count in counts.items() for partition in range(count)]
        committed = {  # first, so that no lag is negative
            group: topics.committed(group, [place for place in places if self._topics[place[0]] in read], CALL_S)
            for group, read in GROUPS.items()
        }
        stable = topics.ends(places, CALL_S, stable=True)
        ends = topics.ends(places, CALL_S)
        now = time.time()
        for place, end in stable.items():
            self._histories.setdefault(place, History()).add(end, now)
        backlogs = self._positions(committed, stable, topics)
        self._read_first(backlogs, stable, stopping)
        figures = _Figures()
        for (group, place), backlog in backlogs.items():
            end, key = stable[place], (group, self._topics[place[0]])
            waiting = end - backlog.place(end)
            figures.messages[key] = figures.messages.get(key, 0) + waiting
            since = now if not waiting else backlog.since(end, self._histories[place], self._skew or 0.0)
            if since is not None:
                figures.seconds[key] = max(figures.seconds.get(key, 0.0), now - since)
        self._measure_hidden(figures, stable, ends, now)
        return figures

    def _positions(
        self, committed: Mapping[str, Mapping[Place, int]], ends: Mapping[Place, int], topics: kafka.Topics
    ) -> dict[tuple[str, Place], Backlog]:
        """The backlogs of this look. A group that has committed nothing of a partition begins at its start."""
        wanted = [
            (group, place)
            for group, names in GROUPS.items()
            for place in ends
            if self._topics[place[0]] in names
        ]  # fmt: skip
        fresh = [place for group, place in wanted if place not in committed[group]]
        starts = topics.starts(fresh, CALL_S)
        self._backlogs = {key: self._backlogs.get(key, Backlog()) for key in wanted}
        for (group, place), backlog in self._backlogs.items():
            backlog.look(min(committed[group].get(place, starts.get(place, 0)), ends[place]))
        return self._backlogs

    def _read_first(
        self, backlogs: Mapping[tuple[str, Place], Backlog], ends: Mapping[Place, int], stopping: threading.Event
    ) -> None:
        # a topic has one group, so a place stands here once
        unknown = [
            (place, backlog)
            for (_, place), backlog in backlogs.items()
            if backlog.to_read(ends[place], self._histories[place])
        ][:READS]
        if not unknown:
            return
        found = kafka.first_messages(
            self._settings,
            self._client,
            {place: backlog.place(ends[place]) for place, backlog in unknown},
            CALL_S,
            stopping,
        )
        for place, backlog in unknown:
            backlog.first = found.get(place, backlog.first)

    def _measure_hidden(
        self, figures: _Figures, stable: Mapping[Place, int], ends: Mapping[Place, int], now: float
    ) -> None:
        for place, end in ends.items():
            topic = self._topics[place[0]]
            behind = max(0, end - stable[place])
            figures.hidden[topic] = figures.hidden.get(topic, 0) + behind
            seconds = self._hidden.setdefault(place, Hidden()).look(stable[place], now) if behind else 0.0
            if not behind:
                self._hidden.pop(place, None)
            figures.hidden_seconds[topic] = max(figures.hidden_seconds.get(topic, 0.0), seconds)

    # telling

    def _tell(self, figures: _Figures) -> None:
        self._measured = True
        self.pending = figures.messages
        for gauge, values in (
            (metrics.GROUP_LAG_RECORDS, figures.messages),
            (metrics.GROUP_LAG_SECONDS, figures.seconds),
        ):
            for key in _pairs(GROUPS):
                if key in values:
                    gauge.labels(*key).set(values[key])
                else:
                    gauge.remove(*key)
        for topic in figures.hidden:
            metrics.UNCOMMITTED.labels(topic).set(figures.hidden[topic])
            metrics.UNCOMMITTED_SECONDS.labels(topic).set(figures.hidden_seconds[topic])

    def _tell_skew(self, skew: float | None) -> None:
        self._skew = skew
        if skew is None:
            metrics.CLOCK_SKEW.clear()
        else:
            metrics.CLOCK_SKEW.labels(self._service).set(skew)

    def _forget(self, why: str) -> None:
        """Take back all that was told of groups and transactions."""
        if self._measured:
            log.info("lag is not measured", because=why)
        self._measured = False
        self.pending = None
        for gauge in (
            metrics.GROUP_LAG_RECORDS,
            metrics.GROUP_LAG_SECONDS,
            metrics.UNCOMMITTED,
            metrics.UNCOMMITTED_SECONDS,
        ):
            gauge.clear()


def _pairs(groups: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    return [(group, topic) for group, topics in groups.items() for topic in topics]
