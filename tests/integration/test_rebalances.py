"""Replicas of standardization that join, leave and die in mid batch: every entry comes out once, and in its order."""

import shutil
import time
import uuid
from pathlib import Path

import pytest

from native.kafka import Broker
from shared import kafka
from shared.config import Settings
from tests.integration.replica import Flow, Replica
from tests.integration.stack import eventually

pytestmark = pytest.mark.kafka

PARTITIONS = 6
SESSION_S = 6.0
TRANSACTION_S = 10.0


@pytest.fixture(params=["classic", "consumer"])
def settings(request: pytest.FixtureRequest, broker: Broker, tmp_path: Path) -> Settings:
    """Both protocols; the classic one rebalances in the cooperative way."""
    made = Settings(
        _env_file=None,
        kafka_bootstrap=broker.bootstrap,
        kafka_group_protocol=request.param,
        topic_prefix=f"r{uuid.uuid4().hex[:8]}-",
        partitions=PARTITIONS,
        data_dir=tmp_path,
    )
    kafka.Topics(made, "test").create()
    return made


def test_replicas_that_join_leave_and_die_in_mid_batch_lose_and_double_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    with Flow(settings) as flow, Replica("one", settings, tmp_path / "one") as one:
        one.until_it_holds(lambda held: held == PARTITIONS, "all partitions")
        flow.moves()
        with Replica("two", settings, tmp_path / "two") as two:
            two.until_it_holds(lambda held: held > 0, "some partitions")
            one.until_it_holds(lambda held: 0 < held < PARTITIONS, "the others")
            flow.moves()

            # a restart on the same folder ends what its past left open at once
            eventually(flow.hidden, 10, "a transaction is open")
            two.kill()
            two.start()
            two.until_it_holds(lambda held: held > 0, "some partitions again")
            flow.moves()

            eventually(flow.hidden, 10, "a transaction is open")
            two.leave()
            one.until_it_holds(lambda held: held == PARTITIONS, "all partitions again")
            flow.moves()
        assert one.process.poll() is None, "the other one was never disturbed"
        assert flow.holds() > 0


def test_the_death_of_a_replica_whose_folder_dies_with_it_blocks_for_its_transaction_time_out_at_most(
    settings: Settings, tmp_path: Path
) -> None:
    with Flow(settings) as flow, Replica("lasting", settings, tmp_path / "lasting") as lasting:
        lasting.until_it_holds(lambda held: held == PARTITIONS, "all partitions")
        identities = {lasting.identity}
        folder = tmp_path / "passing"
        with Replica("passing", settings, folder) as passing:
            passing.until_it_holds(lambda held: held > 0, "some partitions")
            flow.moves()
            identities.add(passing.identity)
            eventually(flow.hidden, 10, "a transaction is open")
            passing.kill()
        shutil.rmtree(folder)
        begun = time.monotonic()
        with Replica("next", settings, folder) as successor:  # nothing tells it who it would succeed
            lasting.until_it_holds(lambda held: held > 0, "some partitions")
            flow.moves(60)
            took = time.monotonic() - begun
            print(f"{settings.kafka_group_protocol}: flows {took:.1f} s after the death")  # noqa: T201 - a figure
            assert took < SESSION_S + TRANSACTION_S + 8.0
            identities.add(successor.identity)
            assert len(identities) == 3, "everyone is somebody else"
            assert flow.holds() > 0


def test_a_second_process_on_one_data_folder_is_refused_and_the_first_goes_on(
    settings: Settings, tmp_path: Path
) -> None:
    with Replica("first", settings, tmp_path / "shared") as first:
        first.until_it_holds(lambda held: held == PARTITIONS, "all partitions")
        with Replica("second", settings, tmp_path / "shared") as second:
            assert second.process.wait(30) == 2
            said = second.log.read_text()
        assert "in use by another process" in said
        assert f"pid {first.process.pid} " in said
        assert "DATA_DIR" in said
        assert len(said.splitlines()) == 1, "a line, and no traceback"
        with Replica("copy", settings, tmp_path / "shared", {"COPIES": "2"}) as copy:
            copy.until_it_holds(lambda held: held > 0, "some partitions, in a folder beside the first")
        assert first.process.poll() is None
