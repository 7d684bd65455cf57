"""Which parts of a line are values: the one set of rules that serves every system's lines.

A line is words with separators between them. A word is a value where it looks like one: it holds a digit, it is an
address, a path, a hash, the name of a host or a class. Neighbouring values are one value (`12.5 MB`, `10.0.0.1:8080`,
`Sun Dec 4 04:47:44 2005`), so that lists of any length look alike. Pure, linear in the line's length.
"""

import re
from typing import Final, NamedTuple

VALUE: Final = "<*>"
_CHUNKS: Final = 64  # pieces between white space that are looked at; what follows is one value
_CHUNK_MAX: Final = 256  # characters of a chunk that is remembered
_REMEMBERED: Final = 50_000  # chunks; beyond it all are forgotten, cheaper than an order

_SHAPE: Final = str.maketrans("123456789", "000000000")
_WHOLE: Final = re.compile(  # values that hold separators: an address with its scheme, a Windows path
    r"<\*>|[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>\]})]+|[A-Za-z]:\\[^\s\"'<>|,;\])}]*|\\\\[^\s\"'<>|,;\])}]+"
)
_WORD: Final = re.compile(r"[^\s=:,;()\[\]{}\"'<>|#&?!]+")
_HEX: Final = re.compile(r"[0-9a-f]{8,}|[0-9A-F]{8,}")
_DOTTED: Final = re.compile(r"(?:[\w$-]+\.){2,}[\w$-]+")
_CONSTANT: Final = re.compile(r"[A-Z][A-Z_]+")
_HOST: Final = re.compile(r"[A-Za-z0-9-]+\.(?:com|net|org|edu|gov|mil|local|localdomain|lan|internal)")
_BACKSLASHED: Final = re.compile(r"\\\w")
_PROTOCOL: Final = re.compile(r"(ssh|ipv|tlsv|sslv|http/|utf-|sha-?|md|oauth)(?=0[.0]*$)", re.IGNORECASE)
_GLUE: Final = re.compile(r"[:.,/@|+\-#;&=_]{0,2}")
_RUN: Final = re.compile(r" ?[:.,/\-+]? ?")

# words that belong to the number before them
_UNITS: Final = (
    "B kB KB MB GB TB PB KiB MiB GiB TiB ns us ms s sec secs second seconds min mins minute minutes h hr hrs hour "
    "hours day days AM PM am pm UTC GMT EST EDT CST CDT MST MDT PST PDT CET CEST Hz kHz MHz GHz %"
)
_AFTER: Final = frozenset(_UNITS.split())
_NAMES_OF_DAYS: Final = "Mon Tue Wed Thu Fri Sat Sun Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_NAMES_OF_MONTHS: Final = (
    "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec January February March April June July August September October "
    "November December"
)
_CALENDAR: Final = frozenset((*_NAMES_OF_DAYS.split(), *_NAMES_OF_MONTHS.split()))

Span = tuple[int, int, bool]  # of a word in its chunk: begin, end, and whether it is a value


class Chunk(NamedTuple):
    """What is known of a piece between white space, from its shape: its text with each digit as 0."""

    masked: str
    spans: tuple[Span, ...]


class Word(NamedTuple):
    """A word of a line, or several that are one value: from a span of one chunk to a span of the same or another."""

    text: str  # VALUE, or the word itself
    first: int  # chunk
    begins: int  # span of the first chunk
    last: int  # chunk
    ends: int  # span of the last chunk
    less: int = 0  # 1 where the `<` before it belongs to it


class Line(NamedTuple):
    """A line as it is looked at."""

    text: str
    masked: str  # equal for lines that are alike; such lines have the same words in the same chunks and spans
    chunks: list[str]
    known: list[Chunk]

    def value(self, word: Word) -> str:
        """The text of a word of this line, or of one that is like it."""
        start = self.known[word.first].spans[word.begins][0] - word.less
        end = self.known[word.last].spans[word.ends][1]
        if word.first == word.last:
            return self.chunks[word.first][start:end]
        place = 0
        for number, chunk in enumerate(self.chunks[: word.last + 1]):
            place = self.text.index(chunk, place)
            if number == word.first:
                start += place
            if number == word.last:
                end += place
            place += len(chunk)
        return self.text[start:end]


class Words(NamedTuple):
    """A line's words and the separators around them, one more than words; white space is one space."""

    words: list[Word]
    separators: list[str]


class Masking:
    """Masks lines, remembering the chunks it has seen. For one thread."""

    def __init__(self) -> None:
        self._chunks: dict[str, Chunk] = {}

    def line(self, text: str) -> Line:
        chunks = text.split(None, _CHUNKS)
        shapes = text.translate(_SHAPE).split(None, _CHUNKS)
        remembered = self._chunks
        try:
            known = [remembered[shape] for shape in shapes]
        except KeyError:
            known = [self._chunk(shape) for shape in shapes]
        if len(chunks) > _CHUNKS:
            known[-1] = Chunk(VALUE, ((0, len(chunks[-1]), True),))
        return Line(text, " ".join([chunk.masked for chunk in known]), chunks, known)

    def _chunk(self, shape: str) -> Chunk:
        known = self._chunks.get(shape)
        if known is None:
            known = _masked(shape)
            if len(shape) <= _CHUNK_MAX:
                if len(self._chunks) >= _REMEMBERED:
                    self._chunks.clear()
                self._chunks[shape] = known
        return known


def words_of(line: Line) -> Words:
    """The words of a line: values that stand together are one."""
    found: list[Word] = []
    separators = [""]
    for number, (chunk, known) in enumerate(zip(line.chunks, line.known, strict=True)):
        position = 0
        if number:
            separators[-1] += " "
        for index, (start, end, value) in enumerate(known.spans):
            separators[-1] += chunk[position:start]
            found.append(Word(VALUE if value else chunk[start:end], number, index, number, index))
            separators.append("")
            position = end
        separators[-1] += chunk[position:]
    _dated(found, separators)
    return _joined(found, separators)


def _masked(shape: str) -> Chunk:
    spans = _spans(shape)
    pieces: list[str] = []
    position = 0
    for start, end, value in spans:
        if value:
            pieces += [shape[position:start], VALUE]
            position = end
    return Chunk("".join([*pieces, shape[position:]]), tuple(spans))


def _spans(chunk: str) -> list[Span]:
    """The words of a chunk whose digits are all 0: where each begins and ends, and whether it is a value."""
    found: list[Span] = []
    position = 0
    for whole in _WHOLE.finditer(chunk):
        _add_words(chunk, position, whole.start(), found)
        _add(chunk, whole.start(), whole.end(), True, found)
        position = whole.end()
    _add_words(chunk, position, len(chunk), found)
    return found


def _add_words(chunk: str, start: int, end: int, found: list[Span]) -> None:
    for match in _WORD.finditer(chunk, start, end):
        word = match[0].rstrip(".")
        if not word:
            continue
        begin, finish = match.start(), match.start() + len(word)
        protocol = _PROTOCOL.match(word)
        if protocol:
            _add(chunk, begin, begin + protocol.end(), False, found)
            begin += protocol.end()
        _add(chunk, begin, finish, is_value(word), found)


def _add(chunk: str, start: int, end: int, value: bool, found: list[Span]) -> None:
    """A word more; a value that is glued to the value before it is one with it."""
    if value and found and found[-1][2] and _GLUE.fullmatch(chunk, found[-1][1], start):
        found[-1] = (found[-1][0], end, True)
    else:
        found.append((start, end, value))


def is_value(word: str) -> bool:
    """Whether a word looks like a value rather than like a part of the sentence."""
    if "0" in word:
        return True
    if word[0] in "/~" and len(word) > 1:
        return True
    if "@" in word[1:-1] or word.count("/") > 1 or _BACKSLASHED.search(word):
        return True
    if "." in word:
        if _HOST.fullmatch(word):
            return True
        dotted = any(map(_DOTTED.fullmatch, word.split("/")))  # org.example.app/org.example.app.Main is one, too
        return dotted and not _CONSTANT.fullmatch(word.rpartition(".")[2])
    return len(word) >= 8 and bool(_HEX.fullmatch(word))


def _dated(found: list[Word], separators: list[str]) -> None:
    """Names of days and months beside a value are a part of it."""
    for _ in range(2):  # `Sun Dec 4`: first the month, then the day
        for position, word in enumerate(found):
            if word.text in _CALENDAR:
                after = position + 1 < len(found) and found[position + 1].text == VALUE
                before = position > 0 and found[position - 1].text == VALUE
                if (after and separators[position + 1] in _BESIDE) or (before and separators[position] in _BESIDE):
                    found[position] = word._replace(text=VALUE)


_BESIDE: Final = frozenset({" ", ", ", "-", "/"})


def _joined(found: list[Word], separators: list[str]) -> Words:
    words: list[Word] = []
    between = [separators[0]]
    for position, word in enumerate(found):
        previous = words[-1] if words else None
        if previous is not None and previous.text == VALUE:
            unit = word.text in _AFTER and between[-1] == " "
            if unit and between[-2].endswith("<"):  # `<1 sec`
                between[-2] = between[-2][:-1]
                previous = previous._replace(less=1)
            if unit or (word.text == VALUE and _RUN.fullmatch(between[-1])):
                words[-1] = previous._replace(last=word.last, ends=word.ends)
                between[-1] = separators[position + 1]
                continue
        words.append(word)
        between.append(separators[position + 1])
    return Words(words, between)
