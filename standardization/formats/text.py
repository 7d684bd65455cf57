"""Entries of plain text: one record whose body is the text; its first word is the severity where it names one."""

import re
from typing import Final

from shared.records import Record
from standardization.mapping import Arrival, unmapped
from standardization.values import severity_of_word

_FIRST_WORD: Final = re.compile(r"\s{0,8}[\[<(]?([A-Za-z]{3,13}[2-4]?)\b")


def record_of(text: str, record_id: str, arrival: Arrival) -> Record:
    """The record of a text: `ERROR: disk full`, `[warning] low memory` and any other."""
    first = _FIRST_WORD.match(text)
    named = severity_of_word(first[1]) if first else None
    return unmapped(record_id, arrival, text) if named is None else unmapped(record_id, arrival, text, named)
