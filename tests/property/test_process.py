"""The result depends on the order of a partition's records, not on calls, transactions, aborts or restarts."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from processing.detect import Rules, Series, series_from_bytes, series_to_bytes
from processing.process import Processed, Processor
from processing.windows import merge
from shared.config import Settings
from shared.records import Outcome, Record

RULES = Rules.of(Settings(_env_file=None, history_min=3, series_max=10))

names = st.text(min_size=1, max_size=3)
numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))
scalars = st.one_of(st.none(), st.booleans(), numbers, names)
records = st.builds(
    Record,
    record_id=names,
    timestamp=st.sampled_from(["2026-01-05T10:00:00Z", "2026-01-05T10:00:59.999Z", "2026-01-05T10:01:00.000001Z"]),
    observed_timestamp=st.sampled_from(["2026-01-05T10:02:00Z", "2026-01-05T10:02:00.123456789Z"]),
    service_name=st.sampled_from(["a", "b"]),
    event_name=st.sampled_from([f"op{n}" for n in range(9)]),
    outcome=st.sampled_from(["success"] * 4 + [outcome.value for outcome in Outcome]),
    duration_s=st.one_of(st.none(), st.floats(0, 1000), st.floats(0, allow_infinity=False)),
    memory_bytes=st.one_of(st.none(), st.integers(0, 2**30), st.integers(0, 2**63 - 1)),
    rows=st.one_of(st.none(), st.integers(0, 2**63 - 1)),
    body=st.one_of(st.none(), st.text(max_size=5)),
    attributes=st.dictionaries(names, scalars, max_size=2),
)
lines = records.map(msgspec.json.encode)
garbage = st.one_of(st.binary(max_size=20), lines.map(lambda line: line[:-1]), lines.map(lambda line: line + b"\xff"))


class Topics:
    """What is kept of a processor's work: its output, the sum of its window deltas, and the compacted state topic."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.anomalies: list[bytes] = []
        self.rejected: list[bytes] = []
        self.windows: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.state: dict[bytes, bytes] = {}  # in the order of the last writes, as compaction keeps it

    def commit(self, processor: Processor, calls: list[Processed]) -> None:
        for done in calls:
            self.records += done.records
            self.anomalies += done.anomalies
            self.rejected += [rejected.value for rejected in done.rejected]
        for _, line in processor.windows():
            delta = msgspec.json.decode(line)
            del delta["duration_sum"]  # the order in which floats are added shows in the last digit
            name = (delta["service_name"], delta["event_name"], delta["minute"])
            self.windows[name] = added(self.windows[name], delta) if name in self.windows else delta
        for _, key, value in processor.changed():
            self.state.pop(key, None)
            if value is not None:
                self.state[key] = value

    def restore(self, processor: Processor) -> Processor:
        for key, value in self.state.items():
            processor.restore(0, key, value)
        return processor


def added(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Two deltas of a window as the store merges them."""
    total = dict(a)
    for name in ("total", "success", "failure", "other", "duration_count", "memory_count", "efficiency_count"):
        total[name] = a[name] + b[name]
    for name in ("rows", "memory_sum"):
        total[name] = min(a[name] + b[name], 2**63 - 1)
    total["efficiency_sum"] = round(a["efficiency_sum"] + b["efficiency_sum"], 1)
    for of in ("duration", "memory"):
        for extreme in (min, max):
            name = f"{of}_{extreme.__name__}"
            total[name] = extreme((x for x in (a[name], b[name]) if x is not None), default=None)
        sketches = [(each[f"{of}_keys"], each[f"{of}_counts"]) for each in (a, b)]
        total[f"{of}_keys"], total[f"{of}_counts"] = merge(sketches)
    return total


@given(st.lists(st.one_of(lines, lines, lines, garbage), max_size=40), st.data())
def test_the_result_does_not_depend_on_calls_transactions_aborts_or_restarts(
    entries: list[bytes], data: st.DataObject
) -> None:
    whole, processor = Topics(), Processor(RULES)
    whole.commit(processor, [processor.process(0, entries)])

    cut, processor = Topics(), Processor(RULES)
    committed = position = 0
    open_calls: list[Processed] = []
    while position < len(entries):
        size = data.draw(st.integers(1, len(entries)), label="size of the call")
        open_calls.append(processor.process(0, entries[position : position + size]))
        position += size
        match data.draw(st.sampled_from(["go on", "commit", "restart", "abort"]), label="then"):
            case "commit":
                cut.commit(processor, open_calls)
                committed, open_calls = position, []
            case "restart":
                cut.commit(processor, open_calls)
                committed, open_calls = position, []
                processor = cut.restore(Processor(RULES))
            case "abort":
                processor.forget(0)
                cut.restore(processor)
                position, open_calls = committed, []
    cut.commit(processor, open_calls)

    assert cut.records == whole.records
    assert cut.anomalies == whole.anomalies
    assert cut.rejected == whole.rejected
    assert cut.windows == whole.windows
    assert list(cut.state.items()) == list(whole.state.items())


@given(st.lists(st.one_of(lines, st.binary(max_size=60), garbage), max_size=20))
def test_every_line_is_measured_or_rejected(entries: list[bytes]) -> None:
    processor = Processor(RULES)
    done = processor.process(0, entries)
    assert len(done.records) + len(done.rejected) == len(entries)
    rejected = {each.index for each in done.rejected}
    accepted = [line for index, line in enumerate(entries) if index not in rejected]
    for line, out in zip(accepted, done.records, strict=True):
        found = json.loads(out)
        assert found.pop("kind") == "record"
        for metric in ("efficiency", "rows_per_s", "bytes_per_s", "anomalies"):
            found.pop(metric, None)
        assert found == json.loads(line)
    assert sum(msgspec.json.decode(line)["total"] for _, line in processor.windows()) == len(done.records)


histories = st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 2**33)), max_size=12)
seconds = st.floats(0, allow_infinity=False)
sizes = st.integers(0, 2**63 - 1)


@given(histories, seconds, seconds, sizes, sizes)
def test_efficiency_is_bounded_and_never_rises_with_duration_or_memory(
    history: list[tuple[float, int]], duration: float, longer: float, memory: int, more: int
) -> None:
    def entry(duration: float, memory: int) -> Record:
        return Record("id", "", "", "a", "b", "success", duration_s=duration, memory_bytes=memory)

    series = Series(("a", "b"), RULES)
    series.follow([entry(*values) for values in history])
    state = series_to_bytes(series)

    def score(duration: float, memory: int) -> int:
        (tenths,), _ = series_from_bytes(series.key, state, RULES).follow([entry(duration, memory)])
        assert tenths is not None
        return tenths

    duration, longer = sorted((duration, longer))
    memory, more = sorted((memory, more))
    assert 0 <= score(longer, more) <= min(score(duration, more), score(longer, memory))
    assert max(score(duration, more), score(longer, memory)) <= score(duration, memory) <= 1000
