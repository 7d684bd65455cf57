"""What a body or a file holds, entry by entry, without holding it: NDJSON lines and the elements of a JSON array."""

import io
import re
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import msgspec

from shared.errors import SluiceError

BLOCK: Final = 1024 * 1024
WHOLE: Final = 8 * BLOCK  # a body up to this is split by the JSON decoder at once


class MalformedBodyError(SluiceError):
    """The body has no structure in which entries could be told apart; the message says where and why."""


class UnreadableSourceError(SluiceError):
    """Bytes that the source had at first can't be read any more; the message says where and why."""


class Source(Protocol):
    """Bytes that can be read at any place: a file, or a spooled body."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`; fewer only at the end, which is at `size`.

        Raises UnreadableSourceError where the source has changed or its disk fails.
        """

    def release(self) -> None:
        """Give up what holds them."""


class Large(NamedTuple):
    """An entry too large to hold; it lies at this place of its source."""

    offset: int
    size: int


class Section(io.RawIOBase):
    """One entry of a source, read like a file."""

    def __init__(self, source: Source, large: Large) -> None:
        super().__init__()
        self._source = source
        self._at = large.offset
        self._end = large.offset + large.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # typeshed's Buffer is 3.12's
        data = self._source.read(self._at, min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


Entries = Iterator[list[bytes] | Large]


def ndjson(source: Source, inline: int) -> Entries:
    """The non-empty lines, a list a block; a line over `inline` bytes as Large. Nothing is parsed."""
    at = 0  # where the next block begins
    carry = b""  # the line that the last block broke off
    while block := source.read(at, BLOCK):
        at += len(block)
        end = block.rfind(b"\n") + 1
        if end:
            lines = (carry + block[:end]).split(b"\n")
            if max(map(len, lines)) <= inline:
                small = [line for line in lines if line and not line.isspace()]
                if small:
                    yield small
            else:
                yield from _with_large(lines, at - len(block) - len(carry), inline)
            carry = block[end:]
            continue
        carry += block
        if len(carry) > inline:
            begin = at - len(carry)
            stop = _line_end(source, at)
            if _after_space(source, begin) < stop:
                yield Large(begin, stop - begin)
            at, carry = stop, b""
    if carry and not carry.isspace():
        yield [carry] if len(carry) <= inline else Large(at - len(carry), len(carry))


def _with_large(lines: list[bytes], begin: int, inline: int) -> Entries:
    for line in lines:
        if line and not line.isspace():
            yield [line] if len(line) <= inline else Large(begin, len(line))
        begin += len(line) + 1


def _line_end(source: Source, at: int) -> int:
    while block := source.read(at, BLOCK):
        found = block.find(b"\n")
        if found >= 0:
            return at + found
        at += len(block)
    return at


def json_value(source: Source, inline: int) -> Entries:
    """The one JSON object that the source is. Raises MalformedBodyError where it is none.

    One over `inline` bytes is only looked at from both ends: what it holds is standardization's to say.
    """
    begin = _after_space(source, 0)
    if source.read(begin, 1) != b"{":
        raise MalformedBodyError(f"byte {begin}: an entry is a JSON object, an array of them, or NDJSON")
    if source.size - begin > inline:
        end = _before_space(source, source.size)
        if source.read(end - 1, 1) != b"}":
            raise MalformedBodyError(f"byte {end}: the object does not end; was the body cut off?")
        if end - begin > inline:
            yield Large(begin, end - begin)
            return
    entry = source.read(begin, inline).rstrip()
    try:
        _value.decode(entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBodyError(f"not one JSON object: {error}") from error
    yield [entry]


_value = msgspec.json.Decoder(type=msgspec.Raw)
_elements = msgspec.json.Decoder(type=list[msgspec.Raw])


def json_array(source: Source, inline: int) -> Entries:
    """The elements of a JSON array, their bytes untouched; one over `inline` bytes as Large.

    Elements are told apart by strings and brackets alone, so that one that is no JSON can still become a dead letter.
    Raises MalformedBodyError where the array itself can't be followed.
    """
    if source.size <= WHOLE:
        try:
            elements = [bytes(element) for element in _elements.decode(source.read(0, source.size))]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # an element is at fault, or the array: the scan below tells which
        else:
            if all(len(element) <= inline for element in elements):
                if elements:
                    yield elements
                return
    yield from _gathered(_scan(source, inline))


_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


def _gathered(found: Entries) -> Entries:
    """The same, in lists of about a block, so that they fill frames."""
    small: list[bytes] = []
    size = 0
    for each in found:
        if isinstance(each, Large):
            if small:
                yield small
            yield each
        else:
            small += each
            size += sum(map(len, each))
            if size < BLOCK:
                continue
            yield small
        small, size = [], 0
    if small:
        yield small


def _scan(source: Source, inline: int) -> Entries:
    begin = _after_space(source, 0)
    if source.read(begin, 1) != b"[":
        raise MalformedBodyError(f"byte {begin}: an array begins with '['")
    element = at = begin + 1
    stack: list[bytes] = []
    comma = False
    while block := source.read(at, BLOCK):
        moved = 0
        for token in _TOKEN.finditer(block):
            mark = token.group()
            if mark == b'"':  # a string that goes beyond this block
                moved = _string_end(source, at + token.start()) - at
                break
            if mark in (b"{", b"["):
                stack.append(b"}" if mark == b"{" else b"]")
            elif mark == b"," and not stack:
                yield _element(source, element, at + token.start(), inline)
                element, comma = at + token.end(), True
            elif mark in (b"}", b"]"):
                if stack:
                    if stack.pop() != mark:
                        raise MalformedBodyError(f"byte {at + token.start()}: '{mark.decode()}' closes nothing here")
                    continue
                if mark == b"}":
                    raise MalformedBodyError(f"byte {at + token.start()}: '}}' closes nothing here")
                end = at + token.start()
                if comma or _after_space(source, element) < end:
                    yield _element(source, element, end, inline)
                rest = _after_space(source, end + 1)
                if rest < source.size:
                    raise MalformedBodyError(f"byte {rest}: something follows the array's end")
                return
        at += moved or len(block)
    raise MalformedBodyError(f"byte {source.size}: the array does not end; was the body cut off?")


def _element(source: Source, begin: int, end: int, inline: int) -> list[bytes] | Large:
    begin = _after_space(source, begin)
    if begin >= end:
        raise MalformedBodyError(f"byte {begin}: an element is missing between two commas")
    if end - begin > inline:
        end = _before_space(source, end)
        if end - begin > inline:
            return Large(begin, end - begin)
    return [source.read(begin, end - begin).rstrip()]


def _string_end(source: Source, at: int) -> int:
    """The place after the string that begins at `at`."""
    at += 1
    while block := source.read(at, BLOCK):
        found = _IN_STRING.match(block)
        end = found.end() if found else 0
        if block[end : end + 1] == b'"':
            return at + end + 1
        if end == 0:  # a backslash, and nothing after it
            break
        at += end  # a backslash that ends the block is read again with what it escapes
    raise MalformedBodyError(f"byte {source.size}: a string does not end; was the body cut off?")


def begins_array(source: Source) -> bool:
    """Whether the first character that is no white space opens an array."""
    return source.read(_after_space(source, 0), 1) == b"["


def _after_space(source: Source, at: int) -> int:
    length = 256  # there is hardly ever more
    while block := source.read(at, length):
        stripped = block.lstrip()
        if stripped:
            return at + len(block) - len(stripped)
        at += len(block)
        length = BLOCK
    return at


def _before_space(source: Source, end: int) -> int:
    """The place after the last character before `end` that is no white space."""
    length = 256
    while end:
        begin = max(0, end - length)
        stripped = source.read(begin, end - begin).rstrip()
        if stripped:
            return begin + len(stripped)
        end, length = begin, BLOCK
    return end
