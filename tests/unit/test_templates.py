"""When lines are one template, what its id is, and what is kept of it."""

from collections.abc import Iterable
from typing import Any

from standardization.masking import Masking
from standardization.templates import TEMPLATES_MAX, TemplateMemory, Templates


def templates() -> Templates:
    return Templates(Masking())


def texts(subject: Templates) -> dict[str, int]:
    return {template.text: tally.count for template, tally in subject.listed()}


def see(subject: Templates, lines: Iterable[str], at: int = 1_000) -> list[str]:
    return [subject.see(line, at).template_id for line in lines]


def test_lines_that_differ_in_their_values_only_are_one_template() -> None:
    subject = templates()
    found = subject.see("Accepted password for 7 from 10.0.0.1 port 22", 1_000)
    assert found.template == "Accepted password for <*> from <*> port <*>"
    assert found.parameters == ["7", "10.0.0.1", "22"]
    again = subject.see("Accepted password for 8 from 10.0.0.20 port 2222", 2_000)
    assert again.template_id == found.template_id
    assert again.parameters == ["8", "10.0.0.20", "2222"]
    ((template, tally),) = subject.listed()
    assert (template.first_seen, tally.last_seen, tally.count) == (1_000, 2_000, 2)
    assert template.example == "Accepted password for 7 from 10.0.0.1 port 22"


def test_a_word_becomes_a_value_when_five_were_seen_in_its_place() -> None:
    subject = templates()
    names = ["anna", "bob", "carol", "dave", "erin", "frank"]
    ids = see(subject, [f"session opened for user {name} today" for name in names])
    assert texts(subject) == {"session opened for user <*> today": 6}
    assert ids[4] == ids[5]
    ((template, _),) = subject.listed()
    assert template.template_id == ids[5]
    assert template.former_ids == ids[:4], "whoever has a record of before finds its template"
    assert subject.see("session opened for user grace today", 1).parameters == ["grace"]


def test_words_that_say_how_it_is_stay_apart() -> None:
    subject = templates()
    states = ["up", "down", "enabled", "disabled", "started", "stopped"]
    see(subject, [f"the network link is {state} now" for state in states])
    assert len(texts(subject)) == len(states)


def test_a_line_of_which_too_little_would_be_left_is_not_generalized() -> None:
    subject = templates()
    words = ["normal", "warning", "critical", "running", "starting", "blocked", "halted", "closing", "active", "idle"]
    see(subject, words)
    assert len(texts(subject)) == len(words)


def test_a_word_seen_before_a_number_in_its_place_joins_once_another_word_shows_it_is_a_value() -> None:
    subject = templates()
    see(subject, ["Invalid user webmaster from 1.2.3.4", "Invalid user 0101 from 1.2.3.4"])
    assert len(texts(subject)) == 2
    see(subject, ["Invalid user admin from 1.2.3.4"])
    assert texts(subject) == {"Invalid user <*> from <*>": 3}


def test_the_same_text_has_the_same_id_in_every_process() -> None:
    other = see(templates(), ["something else", "disk 5 failed"])[1]
    assert see(templates(), ["disk 7 failed"]) == [other] == ["27b70620e02d6f22"]


def test_what_was_written_to_the_state_is_all_that_is_known_after_a_restart() -> None:
    before, after = TemplateMemory(), TemplateMemory()
    names = ["anna", "bob", "carol", "dave", "erin"]
    state: dict[bytes, bytes] = {}
    for at, name in enumerate(names):
        before.see(3, f"session opened for user {name} today", at)
        for partition, key, value in before.changed():
            assert partition == 3
            assert before.owns(key)
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
    assert len(state) == 2, "one template and its tally; what became one with it is deleted"
    for key, value in reversed(state.items()):
        after.restore(3, key, value)
    assert after.listed() == before.listed()
    assert after.see(3, "session opened for user zoe today", 9) == before.see(3, "session opened for user zoe today", 9)
    assert list(after.changed()) == list(before.changed())


def test_nothing_is_written_where_nothing_changed() -> None:
    memory = TemplateMemory()
    memory.see(0, "disk 5 failed", 1)
    assert len(list(memory.changed())) == 2
    assert list(memory.changed()) == []
    memory.see(0, "disk 6 failed", 2)
    assert [key.split(b"/")[0] for _, key, _ in memory.changed()] == [b"template-tally"]


def test_a_partition_that_is_given_up_is_forgotten_with_what_it_had_to_write() -> None:
    memory = TemplateMemory()
    memory.see(0, "disk 5 failed", 1)
    memory.see(1, "disk 5 failed", 1)
    memory.forget(0)
    assert {partition for partition, _, _ in memory.changed()} == {1}
    assert len(memory.listed()) == 1


def test_the_templates_not_seen_for_longest_give_way() -> None:
    subject = templates()
    letters = "abcdefghijklmnopqrst"
    words = [a + b + c + "x" for a in letters for b in letters for c in letters][: TEMPLATES_MAX + 10]
    for at, word in enumerate(words):
        subject.see(f"{word}, {word}", at)
    found = texts(subject)
    assert len(found) <= TEMPLATES_MAX
    assert f"{words[-1]}, {words[-1]}" in found
    assert f"{words[0]}, {words[0]}" not in found
    deleted = sum(value is None for _, value in subject.changed())
    assert deleted == 2 * (len(words) - len(found)), "what gave way is deleted from the state"


def test_a_long_text_has_the_template_of_its_beginning() -> None:
    found = templates().see("the start is here " + "x" * 5_000, 1)
    assert found.template == "the start is here"


def test_a_text_that_begins_with_nothing_but_white_space_has_a_template() -> None:
    assert templates().see(" " * 2_048 + "x", 1_000).template == "x"


def test_what_is_forgotten_leaves_nothing_in_the_tree() -> None:
    subject = templates()
    for number in range(2 * TEMPLATES_MAX):
        letters = "".join(chr(ord("a") + number // 26**place % 26) for place in range(5))
        subject.see(f"{letters} began{'!' * (number % 7)} {letters[::-1]}", number)

    def nodes(node: Any) -> int:
        return 1 + sum(nodes(child) for child in node.key_to_child_node.values())

    assert len(subject.listed()) <= TEMPLATES_MAX
    assert nodes(subject._drain.root_node) < 4 * TEMPLATES_MAX
