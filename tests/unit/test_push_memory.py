"""Which attempt of a push counts: the first in the partition's order, for a day."""

from standardization.transform import BRIEF_MEMORY_S, PUSH_MEMORY_S, PushMemory


def test_the_first_attempt_counts_and_every_other_is_a_repeat() -> None:
    memory = PushMemory()
    assert not memory.is_repeat(0, "run:first", 100)
    assert not memory.is_repeat(0, "run:first", 101)  # the next frame of the same attempt
    assert memory.is_repeat(0, "run:second", 102)
    assert not memory.is_repeat(0, "run:first", 103)


def test_a_run_is_its_partitions_own() -> None:
    memory = PushMemory()
    assert not memory.is_repeat(0, "run:first", 100)
    assert not memory.is_repeat(1, "run:second", 100)


def test_what_it_wrote_to_its_state_is_what_it_knows_after_a_restart() -> None:
    before, after = PushMemory(), PushMemory()
    before.is_repeat(3, "run:first", 100)
    (change,) = before.changed()
    partition, key, value = change
    assert value is not None
    after.restore(partition, key, value)
    assert after.is_repeat(3, "run:second", 101)
    assert not after.is_repeat(3, "run:first", 101)
    assert list(before.changed()) == []


def test_after_a_day_a_run_is_forgotten_and_its_state_deleted() -> None:
    memory = PushMemory()
    memory.is_repeat(0, "old:first", 100)
    memory.is_repeat(0, "young:first", 100 + PUSH_MEMORY_S - 1)
    list(memory.changed())
    memory.is_repeat(0, "new:first", 100 + PUSH_MEMORY_S)
    assert [(key, value is None) for _, key, value in memory.changed()] == [(b"new", False), (b"old", True)]
    assert not memory.is_repeat(0, "old:second", 101 + PUSH_MEMORY_S)
    assert memory.is_repeat(0, "young:second", 101 + PUSH_MEMORY_S)


def test_what_an_aborted_transaction_remembered_is_forgotten_with_its_partition() -> None:
    memory = PushMemory()
    memory.is_repeat(0, "run:aborted", 100)
    memory.is_repeat(1, "other:first", 100)
    memory.forget(0)
    assert [key for _, key, _ in memory.changed()] == [b"other"]
    assert not memory.is_repeat(0, "run:second", 101)


def test_a_push_known_by_its_content_is_remembered_only_while_clients_retry() -> None:
    memory, restored = PushMemory(), PushMemory()
    memory.is_repeat(0, "keyed:first", 100)
    memory.is_repeat(0, "content:~first", 100)
    for partition, key, value in memory.changed():
        assert value is not None
        restored.restore(partition, key, value)
    for known in (memory, restored):
        assert known.is_repeat(0, "content:~second", 99 + BRIEF_MEMORY_S)
        known.is_repeat(0, "other:~first", 100 + BRIEF_MEMORY_S)
        assert [key for _, key, value in known.changed() if value is None] == [b"content"]
        assert not known.is_repeat(0, "content:~third", 100 + BRIEF_MEMORY_S)
        assert known.is_repeat(0, "keyed:second", 100 + BRIEF_MEMORY_S)
    memory.forget(0)
    assert not memory.is_repeat(0, "content:~fourth", 101 + BRIEF_MEMORY_S)
