"""Entries of plain text: one record whose body is the text; its first word is the severity where it names one."""

import re
from typing import Final

from shared.records import Outcome, Record
from standardization.mapping import SEVERITY_OF_OUTCOME, UNKNOWN, Arrival
from standardization.values import severity_of_word

_FIRST_WORD: Final = re.compile(r"\s{0,8}[\[<(]?([A-Za-z]{3,13}[2-4]?)\b")


def record_of(text: str, record_id: str, arrival: Arrival) -> Record:
    """The record of a text: `ERROR: disk full`, `[warning] low memory` and any other."""
    severity_number, severity_text = SEVERITY_OF_OUTCOME[Outcome.UNKNOWN]
    first = _FIRST_WORD.match(text)
    named = severity_of_word(first[1]) if first else None
    if named is not None:
        severity_number, severity_text = named
    return Record(
        record_id=record_id,
        timestamp=arrival.observed_timestamp,
        observed_timestamp=arrival.observed_timestamp,
        service_name=arrival.source or UNKNOWN,
        event_name=UNKNOWN,
        outcome=Outcome.UNKNOWN.value,
        run_id=arrival.run_id,
        origin=arrival.origin,
        severity_number=severity_number,
        severity_text=severity_text,
        body=text,
    )
