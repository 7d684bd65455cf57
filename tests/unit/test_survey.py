"""How old the oldest unread message is, by where the end was when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kafka import First
from shared.survey import POINTS, Backlog, Hidden, History


def seen(*points: tuple[float, int]) -> History:
    history = History()
    for now, end in points:
        history.add(end, now)
    return history


def test_a_message_between_two_looks_is_as_old_as_its_share_of_what_came_meanwhile() -> None:
    history = seen((100, 0), (110, 100))
    assert history.written(0) == 100
    assert history.written(50) == 105


def test_a_message_after_a_pause_came_after_the_pause() -> None:
    history = seen((100, 10), (105, 10), (200, 10), (205, 20))
    assert history.written(10) == 200
    assert history.written(15) == pytest.approx(202.5)


def test_what_came_before_the_history_and_what_has_not_come_is_not_known() -> None:
    history = seen((100, 10), (105, 20))
    assert history.written(9) is None
    assert history.written(20) is None
    assert History().written(0) is None


def test_a_topic_made_anew_has_a_history_of_its_own() -> None:
    history = seen((100, 0), (105, 500), (110, 3), (115, 7))
    assert history.written(100) is None
    assert history.written(5) == pytest.approx(112.5)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=3 * POINTS), st.data())
def test_the_time_lies_between_the_looks_that_saw_the_message_not_there_and_there(
    steps: list[int], data: st.DataObject
) -> None:
    """Also after old points were thinned out: then between looks that lie further apart."""
    history, end, points = History(), 0, []
    for number, step in enumerate(steps):
        end += step
        history.add(end, float(number))
        points.append(end)
    offset = data.draw(st.integers(0, end + 5))
    when = history.written(offset)
    if not points[0] <= offset < end:
        assert when is None
    else:
        assert when is not None
        assert 0 <= when <= len(steps) - 1
        if len(steps) <= POINTS:
            there = next(number for number, seen_end in enumerate(points) if seen_end > offset)
            assert there - 1 <= when <= there


def test_a_history_keeps_a_bounded_number_of_points() -> None:
    history = seen(*((float(n), n) for n in range(100_000)))
    assert len(history._ends) == len(history._times) <= POINTS
    assert history.written(0) == 0
    assert history.written(50_000) == pytest.approx(50_000)


def test_a_group_that_moves_costs_no_reading_and_one_that_stands_is_looked_into_once() -> None:
    history = seen((0, 0), (10, 100))
    backlog = Backlog()
    backlog.look(50)
    assert not backlog.to_read(100, history)
    backlog.look(60)
    assert not backlog.to_read(100, history)
    backlog.look(60)
    assert backlog.to_read(100, history)
    backlog.first = First(60, 7_000)
    backlog.look(60)
    assert not backlog.to_read(100, history)
    assert backlog.since(100, history, skew=0.5) == 7.5
    backlog.look(61)
    assert backlog.first is None


def test_a_message_older_than_the_history_is_read_at_once() -> None:
    backlog = Backlog()
    backlog.look(5)
    assert backlog.to_read(100, seen((0, 50), (10, 100)))


def test_markers_are_no_messages() -> None:
    """The marker of a transaction takes an offset, but nobody ever gets it: such a group has read everything."""
    history = seen((0, 0), (10, 100))
    backlog = Backlog()
    backlog.look(98)
    backlog.look(98)
    backlog.first = First(100, None)  # a reader finds the end
    assert backlog.place(100) == 100
    assert not backlog.to_read(100, history)
    history.add(120, 20)
    backlog.look(98)
    assert backlog.place(120) == 100
    assert backlog.since(120, history, 0.0) == 10


def test_a_hidden_offset_ages_and_another_one_begins_anew() -> None:
    hidden = Hidden()
    assert [hidden.look(5, 100), hidden.look(5, 130), hidden.look(9, 131), hidden.look(9, 135)] == [0, 30, 0, 4]
