"""Lines of a source on their way: JSON in frames, text a message each, what is too long in chunks."""

import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import BinaryIO, Final, Literal, cast

from ingestion.entries import BLOCK, Large, Section, Source
from ingestion.ingest import JSON, framed
from ingestion.session import Session
from shared.config import Settings
from shared.kafka import Headers
from shared.topics import H_CONTENT_TYPE, H_SOURCE, NDJSON

TEXT: Final = "text/plain"
_NEAR: Final = 256  # bytes at both ends of a long line that tell what it is
Format = Literal["auto", "ndjson", "text"]


class Lines:
    """Sends the lines of one source."""

    def __init__(self, settings: Settings, source: str, form: Format, text_type: str = TEXT) -> None:
        """`auto` takes a line that begins and ends as an object does for JSON, and any other for text."""
        self._settings = settings
        self._source = source.encode()
        self._form = form
        self._text_type = text_type

    def send(self, session: Session, lines: Sequence[bytes], key: bytes | None, more: Headers = ()) -> None:
        """Send them in their order, without a CR at their ends; `more` are headers beside source and content type."""
        limit = self._settings.chunk_bytes
        lines = [line.removesuffix(b"\r") for line in lines]
        for content_type, some in self._kinds(lines):
            small: list[bytes] = []
            for line in some:
                if len(line) <= limit:
                    small.append(line)
                    continue
                self._send_small(session, small, content_type, key, more)
                small = []
                large_type = JSON if content_type == NDJSON else content_type
                session.send_large(io.BytesIO(line), len(line), key, self._headers(large_type, more))
            self._send_small(session, small, content_type, key, more)

    def send_long(self, session: Session, source: Source, line: Large, key: bytes | None, more: Headers = ()) -> None:
        """Send one line that is too long to hold, and lies in `source`; without the CR before its end."""
        if source.read(line.offset + line.size - 1, 1) == b"\r":
            line = Large(line.offset, line.size - 1)
        if line.size <= self._settings.chunk_bytes:
            self.send(session, [source.read(line.offset, line.size)], key, more)
            return
        near = min(_NEAR, line.size // 2)
        ends = source.read(line.offset, near) + source.read(line.offset + line.size - near, near)
        is_json = self._form == "ndjson" or (self._form == "auto" and _looks_json(ends))
        headers = self._headers(JSON if is_json else self._text_type, more)
        entry = cast(BinaryIO, io.BufferedReader(Section(source, line), BLOCK))
        session.send_large(entry, line.size, key, headers)

    def _send_small(
        self, session: Session, lines: list[bytes], content_type: str, key: bytes | None, more: Headers
    ) -> None:
        if content_type != NDJSON:
            if lines:
                session.send(lines, key, self._headers(content_type, more), len(lines))
            return
        for frame in framed(lines, self._settings):
            assert isinstance(frame.value, bytes)
            session.send([frame.value], key, self._headers(frame.content_type, more), frame.entries)

    def _kinds(self, lines: Sequence[bytes]) -> Iterator[tuple[str, Sequence[bytes]]]:
        if self._form != "auto":
            yield NDJSON if self._form == "ndjson" else self._text_type, lines
            return
        for is_json, some in groupby(lines, _looks_json):
            yield NDJSON if is_json else self._text_type, list(some)

    def _headers(self, content_type: str, more: Headers) -> Headers:
        return [(H_CONTENT_TYPE, content_type.encode()), (H_SOURCE, self._source), *more]


def _looks_json(line: bytes) -> bool:
    return line.lstrip()[:1] == b"{" and line.rstrip()[-1:] == b"}"
