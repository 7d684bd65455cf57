"""What transactions are for, provoked: zombies, commits in doubt, transactions that nobody ends.

docs/operations.md says of each how it shows, what is done by itself and what is left to the operator.
"""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import kafka, metrics
from shared.config import Settings
from shared.errors import FencedError, KafkaUnavailableError
from shared.topics import RAW_LOGS, partition_of
from tests.chaos.cluster import Cluster
from tests.chaos.network import END_TXN, TXN_OFFSET_COMMIT, Network
from tests.integration.replica import SOURCES, Flow, Replica
from tests.integration.stack import eventually

pytestmark = pytest.mark.kafka

PARTITIONS = 4
SESSION_S = 6.0


@pytest.fixture(scope="module")
def cluster(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One broker, with a network of its own for standardization."""
    folder = tmp_path_factory.mktemp("transactions")
    with Network() as network, Cluster(folder, kafka_libs, network, ["standardization"], nodes=[1]) as made:
        yield made


def settings_of(cluster: Cluster, folder: Path, protocol: str = "consumer") -> Settings:
    made = Settings.model_validate(
        {
            "kafka_bootstrap": cluster.bootstrap,
            "kafka_group_protocol": protocol,
            "topic_prefix": f"x{uuid.uuid4().hex[:8]}-",
            "partitions": PARTITIONS,
            "data_dir": folder,
        }
    )
    kafka.Topics(made, "test").create()
    return made


def ended(replica: Replica, *results: str) -> float:
    return sum(
        replica.metric("sluice_transactions_total", stage="standardization", result=result) for result in results
    )


REFUSED = ("aborted", "fenced", "unknown")
"""How the commit of a zombie may end: its group refuses its offsets, its producer is of the past, or, where it stood
still in mid commit, it never learns the answer. Which one is a matter of where it stood."""


@pytest.mark.parametrize(
    ("protocol", "transaction_s"),
    [
        ("classic", 20),  # its group has gone on without it, its transaction is still open
        ("consumer", 6),  # the broker has ended its transaction, too
    ],
)
def test_a_zombie_is_refused_begins_again_and_doubles_nothing(
    cluster: Cluster, tmp_path: Path, protocol: str, transaction_s: int
) -> None:
    settings = settings_of(cluster, tmp_path, protocol)
    more = {"TRANSACTION_TIMEOUT_MS": str(transaction_s * 1000)}
    with Flow(settings) as flow, Replica("zombie", settings, tmp_path / "zombie", more) as zombie:
        zombie.until_it_holds(lambda held: held == PARTITIONS, "all partitions")
        flow.moves()
        before = ended(zombie, *REFUSED)
        eventually(lambda: _frozen_in_mid_batch(zombie, flow), 30, "it stands still with a transaction open")
        with Replica("heir", settings, tmp_path / "heir") as heir:
            heir.until_it_holds(lambda held: held == PARTITIONS, "all that the zombie held")
            eventually(lambda: transaction_s > SESSION_S or not flow.hidden(), 30, "the broker ends its transaction")
            zombie.thaw()
            eventually(lambda: ended(zombie, *REFUSED) > before, 30, f"the zombie is refused; see {zombie.log}")
            zombie.until_it_holds(lambda held: held > 0, "partitions again")
            flow.moves()
            assert zombie.process.poll() is None, "it begins again by itself"
            assert flow.holds() > 0


def test_a_producer_whose_id_another_has_taken_is_fenced_and_counted(cluster: Cluster, tmp_path: Path) -> None:
    settings = settings_of(cluster, tmp_path)
    past, present = (kafka.Transactions(settings, "zombie", "one-id") for _ in range(2))
    place = (settings.topic(RAW_LOGS), 0)
    assert past.prepare(threading.Event())
    past.begin()
    past.send(place[0], b"of the past", None, 0)
    assert present.prepare(threading.Event())
    with pytest.raises(FencedError):
        past.commit()
    assert metrics.REGISTRY.get_sample_value("sluice_transactions_total", {"stage": "zombie", "result": "fenced"}) == 1
    present.begin()
    present.send(place[0], b"of the present", None, 0)
    present.commit()
    read = kafka.read_to_end(settings, kafka.Topics(settings, "test"), [place], threading.Event())
    assert [message.value() for message in read] == [b"of the present"]
    past.discard()
    present.discard()


def test_a_commit_in_doubt_is_counted_and_what_it_held_comes_out_once(cluster: Cluster, tmp_path: Path) -> None:
    settings = settings_of(cluster, tmp_path)
    (link,) = cluster.links["standardization"].values()
    through = {"KAFKA_BOOTSTRAP": cluster.bootstrap_of("standardization")}
    with Flow(settings) as flow, Replica("one", settings, tmp_path / "one", through) as one:
        one.until_it_holds(lambda held: held == PARTITIONS, "all partitions")
        flow.moves()
        with cluster.mending("standardization"):
            # the answer alone is lost: the client asks again, and is told the same
            assert link.lose_answer(END_TXN).wait(20)
            flow.moves()
            assert ended(one, "unknown") == 0
            # and then there is no way to ask: whether it was committed, only the next session learns
            sprung = link.lose_answer(END_TXN)
            assert sprung.wait(20)
            link.cut()
            eventually(lambda: ended(one, "unknown") == 1, 30, f"the doubt is counted; see {one.log}")
        flow.moves()
        assert one.process.poll() is None, "it begins again by itself"
        assert flow.holds() > 0


def test_offsets_that_nobody_takes_are_an_error_in_time_and_what_they_belonged_to_is_never_read(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = settings_of(cluster, tmp_path)
    (link,) = cluster.links["standardization"].values()
    through = settings.model_copy(update={"kafka_bootstrap": cluster.bootstrap_of("standardization")})
    place = (settings.topic(RAW_LOGS), 0)
    reader = kafka.Reader(settings, "test", "test", subscribes=True)
    held: set[int] = set()

    def assigned(partitions: list[int]) -> dict[int, int]:
        held.update(partitions)
        return dict.fromkeys(partitions, 0)

    reader.subscribe(place[0], assigned, held.difference_update, held.difference_update)
    eventually(lambda: reader.fetch(1, 0.1) or held, 30, "the group has a member")
    writer = kafka.Transactions(through, "cut", "one-id")
    assert writer.prepare(threading.Event())
    with cluster.mending("standardization"):
        writer.begin()
        writer.send(place[0], b"never committed", None, 0)
        lost = link.lose_answer(TXN_OFFSET_COMMIT)

        def cut_then() -> None:
            if lost.wait(30):
                link.cut()

        threading.Thread(target=cut_then).start()
        with pytest.raises((KafkaUnavailableError, kafka.AbortRequiredError)):
            writer.commit(place[0], {0: kafka.Position(1, "")}, reader.group())
        assert lost.is_set()
        writer.discard()
    successor = kafka.Transactions(settings, "cut", "one-id")
    assert successor.prepare(threading.Event())
    successor.discard()
    assert list(kafka.read_to_end(settings, kafka.Topics(settings, "test"), [place], threading.Event())) == []
    reader.close()


def test_a_hung_transaction_hides_one_partition_until_the_operator_ends_it(cluster: Cluster, tmp_path: Path) -> None:
    settings = settings_of(cluster, tmp_path)
    place = (settings.topic(RAW_LOGS), partition_of(SOURCES[0].encode(), PARTITIONS))
    topics = kafka.Topics(settings, "test")
    with Flow(settings) as flow, Replica("one", settings, tmp_path / "one") as one:
        flow.moves()
        foreign = kafka.Transactions(settings, "foreign", "foreign", timeout_ms=900_000)
        assert foreign.prepare(threading.Event())
        foreign.begin()
        foreign.send(*place[:1], b'{"source":"foreign","n":1}', None, place[1])
        hidden_at = eventually(lambda: _hung_at(foreign, topics, place), 20, "its message is there")
        foreign.discard()  # it dies without a word, and its time-out is 15 minutes

        def seen() -> float:
            return one.metric("sluice_uncommitted_seconds", topic=RAW_LOGS)

        eventually(lambda: seen() > 8.0, 40, "the survey tells for how long")
        assert one.metric("sluice_uncommitted_messages", topic=RAW_LOGS) > 1, "and what it hides"
        assert topics.ends([place], stable=True)[place] == hidden_at, "nothing behind it is read"

        listed = cluster.tool("TransactionsCommand", "list")
        assert f"{settings.topic_prefix}foreign" in listed
        told = cluster.tool(
            "TransactionsCommand", "describe-producers", "--topic", place[0], "--partition", str(place[1])
        )
        assert str(hidden_at) in told
        cluster.tool(
            "TransactionsCommand",
            "abort", "--topic", place[0], "--partition", str(place[1]), "--start-offset", str(hidden_at),
        )  # fmt: skip
        flow.moves()
        eventually(lambda: seen() < 5.0, 20, "the survey says that it has ended")
        assert flow.holds() > 0, "and what the foreign producer never committed is not among it"


def _frozen_in_mid_batch(zombie: Replica, flow: Flow) -> bool:
    zombie.freeze()
    if flow.hidden():
        return True
    zombie.thaw()  # it stood still between two transactions
    return False


def _hung_at(writer: kafka.Transactions, topics: kafka.Topics, place: kafka.Place) -> int | None:
    """The first offset that an open transaction hides, once the stable end stands still there."""
    writer.poll()
    first = topics.ends([place], stable=True)[place]
    end = topics.ends([place])[place]
    threading.Event().wait(0.5)
    return first if end > first == topics.ends([place], stable=True)[place] else None
