"""Which parts of a line are values, and where they lie in it."""

import pytest

from standardization.masking import VALUE, Masking, words_of


def masked(text: str) -> str:
    words, separators = words_of(Masking().line(text))
    return "".join(part for pair in zip(separators, [*(word.text for word in words), ""], strict=True) for part in pair)


def values(text: str) -> list[str]:
    line = Masking().line(text)
    return [line.value(word) for word in words_of(line).words if word.text == VALUE]


@pytest.mark.parametrize(
    ("text", "template", "found"),
    [
        ("Took 12.5 seconds to build", "Took <*> to build", ["12.5 seconds"]),
        ("from 10.0.0.1:8080, port 22", "from <*>, port <*>", ["10.0.0.1:8080", "22"]),
        ("lifetime <1 sec", "lifetime <*>", ["<1 sec"]),
        ("lifetime 00:01", "lifetime <*>", ["00:01"]),
        ("at Sun Dec 04 04:47:44 2005 again", "at <*> again", ["Sun Dec 04 04:47:44 2005"]),
        ("found  /etc/httpd/conf/x.conf twice", "found <*> twice", ["/etc/httpd/conf/x.conf"]),
        (r"Core: C:\Windows\a.dll loaded", "Core: <*> loaded", [r"C:\Windows\a.dll"]),
        ("uid=0 euid=1000 tty=ssh", "uid=<*> euid=<*> tty=ssh", ["0", "1000"]),
        ("over ssh2 and IPv6", "over ssh<*> and IPv<*>", ["2", "6"]),
        ("code deadbeefcafe seen", "code <*> seen", ["deadbeefcafe"]),
        ("get https://a.example/x?y=z now", "get <*> now", ["https://a.example/x?y=z"]),
        ("to ns.example.com [1.2.3.4]", "to <*> [<*>]", ["ns.example.com", "1.2.3.4"]),
        ("numbers 1 2  3, 4 end", "numbers <*> end", ["1 2  3, 4"]),
        ("read/write lock and I/O", "read/write lock and I/O", []),
        ("the word <*> itself", "the word <*> itself", ["<*>"]),
        ("", "", []),
    ],
)
def test_values_are_masked_and_are_found_again_in_the_line(text: str, template: str, found: list[str]) -> None:
    assert masked(text) == template
    assert values(text) == found


def test_lines_that_are_masked_alike_have_their_values_in_the_same_places() -> None:
    masking = Masking()
    first, second = masking.line("uid=0 took 5 ms"), masking.line("uid=100000 took 12345 ms")
    assert first.masked == second.masked
    places = [word for word in words_of(first).words if word.text == VALUE]
    assert [second.value(place) for place in places] == ["100000", "12345 ms"]


def test_of_a_line_of_many_words_the_rest_is_one_value() -> None:
    line = " ".join(["word"] * 100)
    assert masked(line) == " ".join(["word"] * 64) + " <*>"
    assert values(line) == [" ".join(["word"] * 36)]
