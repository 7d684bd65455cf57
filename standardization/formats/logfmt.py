"""logfmt: `level=info msg="user logged in" user=42 took=12ms`, its keys read as a JSON object's would be."""

import re
from typing import Any, Final

_PAIR: Final = re.compile(r'([^\s="]{1,128})(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*)))?(?:\s+|$)', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r"}
_PAIRS_MAX: Final = 1_000
_TELLING: Final = frozenset({"level", "lvl", "severity", "msg", "message"})  # keys without which a guess is too bold


def entry_of(text: str) -> dict[str, Any] | None:
    """The entry that the line is, or None where it is no logfmt. A key alone is true."""
    entry: dict[str, Any] = {}
    place = len(text) - len(text.lstrip())
    while place < len(text):
        pair = _PAIR.match(text, place)
        if pair is None or len(entry) > _PAIRS_MAX:
            return None
        key, quoted, bare = pair.groups()
        if quoted is not None:
            entry[key] = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), quoted)
        else:
            entry[key] = True if bare is None else bare
        place = pair.end()
    return entry if any(value is not True for value in entry.values()) else None


def guessed(text: str) -> dict[str, Any] | None:
    """Likewise of a line that nobody said is logfmt: pairs only, and one of them tells the message or the severity."""
    entry = entry_of(text)
    if entry is None or len(entry) < 2 or True in entry.values() or not _TELLING & entry.keys():
        return None
    return entry
