"""Keys find the partition that a Java client would have chosen."""

import pytest

from processing import sink
from processing import transform as processing
from shared.topics import (
    CLOCK,
    GROUPS,
    H_CHUNK,
    INGESTION_STATE,
    RAW_LOGS,
    STANDARDIZATION_STATE,
    STANDARDIZED_LOGS,
    key_of_state,
    murmur2,
    partition_of,
    series_key,
    specs,
)
from standardization import transform as standardization


# From Kafka's own UtilsTest.testMurmur2, where results are signed.
@pytest.mark.parametrize(
    ("key", "java"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_equals_the_java_client_s(key: bytes, java: int) -> None:
    assert murmur2(key) == java & 0xFFFFFFFF


def test_a_partition_is_the_positive_part_of_the_hash_as_java_takes_it() -> None:
    # Java clears the sign bit; the absolute value or the unsigned remainder would give other partitions.
    signed = -790332482
    assert partition_of(b"foobar", 12) == (signed & 0x7FFFFFFF) % 12
    assert partition_of(b"foobar", 12) != abs(signed) % 12
    assert partition_of(b"foobar", 10) != (signed & 0xFFFFFFFF) % 10


def test_the_empty_key_has_a_partition() -> None:
    assert partition_of(b"", 12) in range(12)


def test_keys_spread_over_all_partitions() -> None:
    assert {partition_of(b"source-%d" % n, 12) for n in range(1_000)} == set(range(12))


def test_a_series_is_one_source_and_one_operation() -> None:
    assert series_key("Efficy", "Sync") == b"Efficy/Sync"
    assert series_key("é", "Sync") == "é/Sync".encode()


def test_topics_of_the_flow_stamp_their_own_time_and_are_not_compacted_while_state_is() -> None:
    config = {spec.name: spec.config for spec in specs(12, 168)}
    assert config[RAW_LOGS]["message.timestamp.type"] == "LogAppendTime"
    assert config[RAW_LOGS]["cleanup.policy"] == "delete"
    assert config[RAW_LOGS]["retention.ms"] == str(7 * 24 * 3_600_000)
    assert config[STANDARDIZATION_STATE]["cleanup.policy"] == "compact"


def test_all_topics_of_the_chain_have_the_same_number_of_partitions() -> None:
    assert {spec.partitions for spec in specs(5, 1) if spec.name not in (CLOCK, INGESTION_STATE)} == {5}


def test_the_groups_are_those_of_the_stages_and_the_sink_and_read_what_these_read() -> None:
    assert GROUPS == {
        standardization.STAGE: (RAW_LOGS,),
        processing.STAGE: (STANDARDIZED_LOGS,),
        sink.GROUP: sink.TOPICS,
    }


def test_our_headers_carry_our_prefix() -> None:
    assert H_CHUNK == "sluice-chunk"


def test_templates_stay_on_the_partition_that_they_were_learned_on() -> None:
    assert key_of_state(STANDARDIZATION_STATE, b"template/27b70620e02d6f22") is None
    assert key_of_state(STANDARDIZATION_STATE, b"template-tally/27b70620e02d6f22") is None
    assert key_of_state(STANDARDIZATION_STATE, b"run-1") == b"run-1"
