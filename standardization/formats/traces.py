"""Stack traces of Python, Java, Go and .NET: one entry of several lines, perhaps after a line that was logged with it.

The record's body is the whole text; `exception.type` and `exception.message` (OpenTelemetry's names) say what happened.
"""

import re
from typing import Any, Final

_LINES: Final = 10_000
_RAISED: Final = re.compile(  # `pkg.SomeError: message`, `Exception in thread "main" java.lang.X: message`
    r'(?:Exception in thread "[^"\n]{0,200}" |Unhandled exception\. |Caused by: )?'
    r"([A-Za-z_][\w$]{0,100}(?:[.][A-Za-z_][\w$`]{0,100}){0,20})(?:: (.*))?"
)
_GO: Final = re.compile(r"goroutine \d{1,12} \[[^\]\n]{1,100}\]:")
_PYTHON: Final = "Traceback (most recent call last):"


def entry_of(text: str) -> dict[str, Any] | None:
    """The entry that a stack trace is, or None where the text is none."""
    lines = text.split("\n", _LINES)
    found = _python(lines) or _go(lines) or _java_or_net(lines)
    if found is None:
        return None
    kind, said = found
    entry: dict[str, Any] = {"message": text, "outcome": "failure", "exception.type": kind, "operation": kind}
    if said:
        entry["exception.message"] = said
    return entry


def _python(lines: list[str]) -> tuple[str, str] | None:
    """The last exception that was raised: the line after the last traceback's frames."""
    starts = [at for at, line in enumerate(lines) if line.rstrip().endswith(_PYTHON)]
    if not starts:
        return None
    margin = len(lines[starts[-1]]) - len(lines[starts[-1]].lstrip())
    for line in lines[starts[-1] + 1 :]:
        shown = line[margin:].rstrip() if line[:margin].isspace() or not margin else line.rstrip()
        if shown and not shown[0].isspace():
            raised = _RAISED.fullmatch(shown)
            return (raised[1], raised[2] or "") if raised else None
    return None


def _go(lines: list[str]) -> tuple[str, str] | None:
    panic = next((at for at, line in enumerate(lines) if line.startswith(("panic: ", "fatal error: "))), None)
    if panic is None or not any(map(_GO.match, lines[panic + 1 :])):
        return None
    kind, _, said = lines[panic].partition(": ")
    return kind, said.strip()


def _java_or_net(lines: list[str]) -> tuple[str, str] | None:
    """The exception on the line before the first frame, or before those its message went over."""
    first = next((at for at, line in enumerate(lines) if _is_frame(line)), None)
    if not first:
        return None
    for line in reversed(lines[max(0, first - 20) : first]):
        raised = _RAISED.fullmatch(line.strip())
        if raised and _names_a_class(raised[1]):
            return raised[1], (raised[2] or "").strip()
    return None


def _is_frame(line: str) -> bool:
    """`\tat pkg.Class.method(File.java:12)`, `   at Name.Space.Method(String s) in C:\\file.cs:line 12`."""
    shown = line.strip()
    if not line[:1].isspace() or not shown.startswith("at ") or "(" not in shown:
        return False
    called, _, number = shown.rpartition(":line ")
    return shown.endswith(")") or (number.isdigit() and ") in " in called)


def _names_a_class(name: str) -> bool:
    last = name.rpartition(".")[2]
    return "." in name or last.endswith(("Exception", "Error"))
