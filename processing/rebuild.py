"""A rebuild of the store from the topics: what it can bring back, and how far it is.

The sink does the work: it turns to a new epoch, empty, reads the topics from their start, and has the store switch when
it has caught up. Until then everything is answered from the epoch before, as it was when the rebuild began.
"""

import threading
import time
from dataclasses import dataclass

from processing.sink import TOPICS
from processing.store import Store
from shared import kafka
from shared.config import Settings

_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a rebuild would lose. Complete: nothing."""

    complete: bool
    complete_from_ns: int | None  # all that came since can be brought back; None: all that ever came
    records_before: int  # records stored before that, most or all of which would be lost


def forecast(settings: Settings, store: Store) -> Forecast:
    """Compare what the topics still hold with what the store has. Raises KafkaUnavailableError, StoreError."""
    topics = kafka.Topics(settings, "rebuild")
    names = [settings.topic(name) for name in TOPICS]
    ids = topics.ids(names)
    counts = topics.partitions(names)
    starts = topics.starts([(name, partition) for name in names for partition in range(counts[name])])
    positions = store.positions()
    cut = {place: start for place, start in starts.items() if start > 0 and positions.get((ids[place[0]], place[1]), 0)}
    anew = any(topic_id not in ids.values() for topic_id, _ in positions)
    if not cut and not anew:
        return Forecast(complete=True, complete_from_ns=None, records_before=0)
    firsts = kafka.first_messages(settings, "rebuild", cut or starts, _PATIENCE_S, threading.Event())
    kept_ms = [first.timestamp_ms for first in firsts.values() if first.timestamp_ms is not None]
    now_ms = time.time_ns() // 1_000_000
    # what retention has cut begins where the last partition does, what was made anew where the first one does
    since_ms = min(kept_ms, default=now_ms) if not cut else max(kept_ms) if len(kept_ms) == len(cut) else now_ms
    return Forecast(complete=False, complete_from_ns=since_ms * 1_000_000, records_before=store.records(since_ms))
