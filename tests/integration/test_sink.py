"""The sink on a real Kafka and a real store: what it loses, repeats or buries when things go wrong."""

import io
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from native.kafka import Broker
from processing import sink as sink_module
from processing.sink import Sink
from processing.store import Batch, Range, Rows, Store, open_store
from shared import kafka, metrics
from shared.chunking import split
from shared.config import Settings
from shared.errors import KafkaUnavailableError, StoreError
from shared.records import DeadLetter
from shared.spool import Spool
from shared.topics import DEAD_LETTERS, H_CHUNK, H_KIND, INGEST_RUNS, PROCESSED_METRICS
from tests.contract.samples import anomaly, batch, count, receipt, record
from tests.integration.stack import eventually

pytestmark = pytest.mark.kafka

Message = tuple[str, bytes, list[tuple[str, bytes | None]]]
LETTER_BYTES = 3_000
CHUNK_BYTES = 2_000


@pytest.fixture
def settings(broker: Broker, tmp_path: Path) -> Settings:
    """Topics of the test's own, of one partition, so that their offsets are known."""
    made = Settings(
        _env_file=None,
        kafka_bootstrap=broker.bootstrap,
        topic_prefix=f"s{uuid.uuid4().hex[:8]}-",
        data_dir=tmp_path,
        partitions=1,
        clickhouse_url="",
        entry_max_bytes=LETTER_BYTES + 1_000,
    )
    topics = kafka.Topics(made, "test")
    topics.create()
    places = [(made.topic(name), 0) for name in (PROCESSED_METRICS, DEAD_LETTERS, INGEST_RUNS)]

    def led() -> bool:
        try:
            return len(topics.ends(places)) == len(places)
        except KafkaUnavailableError:
            return False

    eventually(led, 30, "the topics have leaders")
    return made


@pytest.fixture
def store(settings: Settings, tmp_path: Path) -> Iterator[Store]:
    opened = open_store(settings, tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", 64 * 1024 * 1024)


@contextmanager
def running(settings: Settings, store: Store, spool: Spool) -> Iterator[Sink]:
    """A sink at work; its death fails the test, and leaving stops it as an orderly restart does."""
    sink = Sink(settings, store, spool)
    stopping = threading.Event()
    died: list[BaseException] = []

    def work() -> None:
        try:
            sink.run(stopping)
        except Exception as error:
            died.append(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield sink
    finally:
        stopping.set()
        thread.join(60)
    assert not thread.is_alive()
    assert died == []


def produce(settings: Settings, *messages: Message) -> None:
    """Send messages to partition 0, in one transaction."""
    writer = kafka.Transactions(settings, "test", f"test-{uuid.uuid4().hex[:8]}")
    assert writer.prepare(threading.Event())
    writer.begin()
    for topic, value, headers in messages:
        writer.send(settings.topic(topic), value, None, 0, headers)
    writer.commit()


def chunked_letter(number: int) -> list[Message]:
    """A dead letter in two chunks."""
    letter = DeadLetter(
        value=bytes([number]) * LETTER_BYTES,
        reason="malformed_json",
        detail="not JSON",
        stage="standardization",
        topic="raw-logs",
        partition=0,
        offset=number,
        index=0,
        record_id=f"aaaaaaaa-0-{number}-0",
        time="2026-01-05T10:00:00Z",
        run_id="r",
    )
    chunks = split(io.BytesIO(letter.value), LETTER_BYTES, CHUNK_BYTES, uuid.uuid4().bytes, 1)
    own = letter.to_headers()
    return [
        (DEAD_LETTERS, piece, [(H_CHUNK, header), *(own if index == 0 else ())])
        for index, (header, piece) in enumerate(chunks)
    ]


def run(number: int) -> Message:
    return INGEST_RUNS, receipt(f"run-{number}", 1), []


def foreign(kind: str, value: bytes) -> Message:
    return PROCESSED_METRICS, value, [(H_KIND, kind.encode())]


def letters(store: Store) -> list[tuple[str, str]]:
    found = store.query("SELECT record_id, reason FROM dead_letters ORDER BY record_id, reason")
    return [(row["record_id"], row["reason"]) for row in found]


def value_of(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def failing_inserts(
    monkeypatch: pytest.MonkeyPatch, store: Store, times: int, when: Callable[[Rows], bool]
) -> list[int]:
    """Let the inserts fail for which `when` holds, so many times."""
    real = store.insert
    failures: list[int] = []

    def insert(entered: Batch, rows: Rows) -> None:
        if len(failures) < times and when(rows):
            failures.append(entered.number)
            raise StoreError("the store went away")
        real(entered, rows)

    monkeypatch.setattr(store, "insert", insert)
    return failures


WHOLE = [("aaaaaaaa-0-1-0", "malformed_json"), ("aaaaaaaa-0-2-0", "malformed_json")]


def test_a_message_that_lies_across_the_end_of_a_batch_is_stored_once_over_a_restart(
    settings: Settings, store: Store, spool: Spool
) -> None:
    one, two = chunked_letter(1), chunked_letter(2)
    produce(settings, one[0], two[0], one[1])
    complete = value_of("sluice_chunk_assemblies_total", stage="sink", result="complete")
    with running(settings, store, spool) as sink:
        eventually(lambda: sink.running, 30, "the sink reads")
        produce(settings, run(1))
        eventually(lambda: count(store, "runs") == 1, 30, "a run that came after is stored")
        eventually(
            lambda: value_of("sluice_chunk_assemblies_total", stage="sink", result="complete") > complete,
            30,
            "the whole message is counted",
        )
        assert value_of("sluice_assigned_partitions", stage="sink") == len(sink_module.TOPICS)
    assert value_of("sluice_assigned_partitions", stage="sink") == 0
    with running(settings, store, spool):
        produce(settings, two[1])
        eventually(lambda: len(letters(store)) >= 2, 30, "both letters")
        produce(settings, run(2))
        eventually(lambda: count(store, "runs") == 2, 30, "a run that came after is stored")
    assert letters(store) == WHOLE


def test_a_message_that_lies_across_the_end_of_a_batch_survives_a_crash_between_ledger_and_rows(
    settings: Settings, store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = chunked_letter(1), chunked_letter(2)
    failures = failing_inserts(monkeypatch, store, 1, lambda rows: any(rows.dead_letters))
    produce(settings, one[0], two[0], one[1])
    with running(settings, store, spool):
        produce(settings, run(1))
        eventually(lambda: count(store, "runs") == 1, 30, "a run that came after is stored")
        produce(settings, two[1])
        eventually(lambda: len(letters(store)) >= 2, 30, "both letters")
    assert len(failures) == 1
    assert letters(store) == WHOLE


def test_a_repeated_batch_has_the_messages_that_had_to_wait_for_room_in_the_spool(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = chunked_letter(1), chunked_letter(2)
    spool = Spool(tmp_path / "small", LETTER_BYTES + 1_500)
    failures = failing_inserts(monkeypatch, store, 1, lambda rows: any(rows.dead_letters))
    produce(settings, one[0], two[0], one[1], two[1])
    with running(settings, store, spool):
        eventually(lambda: len(letters(store)) >= 2, 30, "both letters")
    assert len(failures) == 1
    assert letters(store) == WHOLE


def test_foreign_messages_end_as_dead_letters_and_the_sink_goes_on(
    settings: Settings, store: Store, spool: Spool
) -> None:
    stored = value_of("sluice_store_rows_total", table="anomalies")
    other = value_of("sluice_anomalies_total", reason="other")
    produce(settings, foreign("anomaly", b"garbage"))
    with running(settings, store, spool):
        eventually(lambda: count(store, "dead_letters") == 1, 30, "the letter of the garbage")
        produce(settings, foreign("record", record("a", observed_timestamp="2026-13-45T99:99:99Z")))
        eventually(lambda: count(store, "dead_letters") == 2, 30, "the letter of the bad instant")
        produce(settings, foreign("anomaly", anomaly("a", reason="of somebody else")))
        eventually(lambda: count(store, "anomalies") == 1, 30, "an anomaly of another's reason")
    assert value_of("sluice_store_rows_total", table="anomalies") == stored + 1
    assert value_of("sluice_anomalies_total", reason="other") == other + 1
    assert count(store, "records") == 0


def test_a_line_that_is_stored_is_not_buried_with_the_batch_that_was_rejected(
    settings: Settings, store: Store, spool: Spool
) -> None:
    # anomalies are written before records; this one the engine takes, our own check would not
    number_for_text = record("a", service_name=5, outcome="failure", reason="failure")
    produce(settings, foreign("anomaly", number_for_text), foreign("record", b"garbage"))
    with running(settings, store, spool):
        eventually(lambda: count(store, "dead_letters") >= 1, 30, "the letter of the garbage")
        produce(settings, run(1))
        eventually(lambda: count(store, "runs") == 1, 30, "a run that came after is stored")
    assert count(store, "anomalies") == 1
    assert [row["detail"][:17] for row in store.query("SELECT detail FROM dead_letters")] == ["no row of records"]


def test_a_batch_that_fails_again_and_again_buries_its_lines_once(
    settings: Settings, store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    buried = value_of("sluice_dead_letters_total", stage="sink", reason="invalid_record")
    failures = failing_inserts(monkeypatch, store, 3, lambda rows: rows.anomalies == [b""])
    produce(settings, foreign("anomaly", b"garbage"))
    with running(settings, store, spool):
        eventually(lambda: count(store, "dead_letters") >= 1, 60, "the letter of the garbage")
        produce(settings, run(1))
        eventually(lambda: count(store, "runs") == 1, 30, "a run that came after is stored")
    assert len(failures) == 3
    assert count(store, "dead_letters") == 1
    assert value_of("sluice_dead_letters_total", stage="sink", reason="invalid_record") == buried + 1


def test_rows_behind_a_message_without_its_rest_are_told_of_and_stored_when_it_expires(
    settings: Settings, store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "HELD_S", 0.5)
    monkeypatch.setattr(sink_module, "EXPIRY_MS", 5_000)
    header, piece = next(split(io.BytesIO(bytes(3_000)), 3_000, 1_024, uuid.uuid4().bytes, 1))
    produce(settings, run(1), (INGEST_RUNS, piece, [(H_CHUNK, header)]), run(2), run(3))
    with running(settings, store, spool) as sink:
        problem = eventually(lambda: [p for p in sink.problems() if "chunked" in p], 30, "the problem is told")
        assert problem[0].startswith("ingest-runs 0: 2 messages wait")
        assert problem[0].endswith("at offset 1")
        eventually(lambda: count(store, "runs") == 3, 30, "the runs behind it")
        eventually(lambda: sink.problems() == [], 30, "the problem is over")
        eventually(lambda: [reason for _, reason in letters(store)] == ["chunk_expired"], 30, "its dead letter")


def test_reading_a_batch_again_ends_when_told_to_stop(
    settings: Settings, store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.open_batch(batch(1, range_of(settings, 0, 5)))  # of these offsets there is nothing
    reading = threading.Event()
    real = kafka.Reader.fetch

    def fetch(reader: kafka.Reader, limit: int, patience: float) -> list[kafka.Consumed]:
        reading.set()
        return real(reader, limit, patience)

    monkeypatch.setattr(kafka.Reader, "fetch", fetch)
    with running(settings, store, spool):  # leaving it waits for half as long as the reading again may take
        assert reading.wait(30)
    last = store.last_batch()
    assert last is not None
    assert not last.closed


def test_what_retention_took_of_an_open_batch_is_counted_and_the_rest_is_stored(
    settings: Settings, store: Store, spool: Spool
) -> None:
    lost = value_of("sluice_errors_total", stage="sink", kind="retention")
    produce(settings, *[run(number) for number in range(10)])
    store.open_batch(batch(1, range_of(settings, 0, 9)))
    admin: Any = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    for future in admin.delete_records([TopicPartition(settings.topic(INGEST_RUNS), 0, 4)]).values():
        future.result()
    with running(settings, store, spool):
        eventually(lambda: getattr(store.last_batch(), "closed", False), 30, "the batch is closed")
    assert sorted(row["run_id"] for row in store.query("SELECT run_id FROM runs")) == [f"run-{n}" for n in range(4, 10)]
    assert value_of("sluice_errors_total", stage="sink", kind="retention") == lost + 1


def range_of(settings: Settings, first: int, last: int) -> Range:
    name = settings.topic(INGEST_RUNS)
    return Range(kafka.Topics(settings, "test").ids([name])[name], INGEST_RUNS, 0, first, last)
