"""What a loop knows of its partitions: a message that comes again is passed over, whoever went back."""

from pathlib import Path
from typing import Any, NamedTuple, cast

from shared import kafka
from shared.chunking import Assembler, Watermark
from shared.reading import Reading
from shared.spool import Spool


class Plain(NamedTuple):
    """What `note` looks at of a message of partition 0."""

    at: int

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000


def test_messages_that_come_again_are_passed_over_and_committed_no_earlier(tmp_path: Path) -> None:
    """As after a partition was revoked and given back between the messages of one fetch."""
    reading = Reading("stage", "topic", "topic", cast(kafka.Reader, None), Assembler(Spool(tmp_path, 1 << 20), 1 << 20))
    reading.begin(0, 10, Watermark(10))
    fetched = [10, 11, 12, 10, 11, 12, 13]
    passed_over = [reading.note(cast(Any, Plain(offset))) for offset in fetched]
    assert passed_over == [False, False, False, True, True, True, False]
    assert reading.note(cast(Any, Plain(11)))
    assert reading.furthest(0) == 14
    offset, watermark = reading.place(0)
    assert watermark.offset == 14, (offset, watermark)
