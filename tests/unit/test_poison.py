"""A stage stops when too much is poison, and not sooner."""

from shared.poison import PoisonLimit


def test_it_is_off_at_a_ratio_of_0() -> None:
    assert PoisonLimit(0.0, 1, 60).exceeded(1_000, 1_000, 0) is None


def test_it_takes_both_the_ratio_and_the_least_number() -> None:
    limit = PoisonLimit(0.5, 10, 60)
    assert limit.exceeded(9, 9, 0) is None
    assert limit.exceeded(100, 49, 0) is None
    assert limit.exceeded(100, 50, 0) == "50 of 100 entries of the last 60 s would be dead letters"


def test_what_was_committed_before_counts_for_as_long_as_the_window() -> None:
    limit = PoisonLimit(0.5, 10, 60)
    for second in range(10):
        limit.add(1, 1, second)
    assert limit.exceeded(1, 1, 10) is not None
    assert limit.exceeded(100, 1, 10) is None, "good entries count, too"
    assert limit.exceeded(1, 1, 80) is None, "the window has passed"
    limit.add(1_000, 0, 81)
    assert limit.exceeded(9, 9, 82) is None


def test_a_transaction_without_dead_letters_is_never_stopped() -> None:
    limit = PoisonLimit(0.1, 1, 60)
    limit.add(10, 10, 0)
    assert limit.exceeded(1, 0, 1) is None


def test_a_poisoned_message_that_holds_no_entry_is_one_of_all() -> None:
    assert PoisonLimit(1.0, 5, 60).exceeded(0, 5, 0) is not None
