"""The templates of free text: Drain's tree (drain3), with evidence in place of its similarity threshold. Pure.

line > mask (masking.py) > known? > Drain: length > separators > templates that differ in one word > generalize?

Lines are one template when they are equal but for their values. A word that no rule takes for a value becomes one
by evidence: once enough templates differ in that word alone, they are one template, and the word is a value of it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from drain3.drain import Drain, LogCluster, Node

from shared.state import StateCodec
from shared.topics import TALLY_KEYS, TEMPLATE_KEYS
from standardization.masking import VALUE, Line, Masking, Word, words_of

TEMPLATE: Final = "log_template"
TEMPLATE_ID: Final = "log_template_id"
PARAMETERS: Final = "log_template_params"

TEMPLATES_MAX: Final = 2_000  # of a partition; the ones not seen for longest give way
IDS_MAX: Final = 32  # former ids that a template keeps
_EXAMPLE_MAX: Final = 500  # characters
_LEAF_MAX: Final = 512  # templates of the same length and separators that a new one is compared with, the newest
_TEXT_MAX: Final = 2_048  # characters that are looked at
_LINES_MAX: Final = 20_000  # masked lines that are remembered with their template
_VALUES: Final = 5  # distinct words in one place that make it a value ...
_VALUES_FIRST: Final = 8  # ... in the first place, where the verb mostly stands
_VALUES_MIXED: Final = 2  # ... where values were seen in that place already
_WORDS_LEFT: Final = 2  # words of three letters or more that a template keeps
# Words that say how it is: one in place of another is another message.
_STATE_WORDS: Final = (
    "true false yes no on off null none up down enabled disabled begin end start stop started stopped open close "
    "opened closed success failure succeeded failed ok error"
)
_STATES: Final = frozenset(_STATE_WORDS.split())

_encode: Final = msgspec.json.Encoder().encode


class Template(msgspec.Struct, omit_defaults=True):
    """A template as it is kept: what is in its record of the state topic."""

    template_id: str  # now: 16 hex digits made from the template's text
    separators: list[str]
    words: list[str]
    first_seen: int  # ms since the epoch: when raw-logs took the first line of it
    example: str
    former_ids: list[str] = []  # what it was before it was generalized, and what became one with it
    schema: int = 1

    @property
    def text(self) -> str:
        return _text_of(self.words, self.separators)


class Tally(msgspec.Struct, omit_defaults=True):
    """How often a template was seen, and when last (ms since the epoch)."""

    count: int
    last_seen: int
    schema: int = 1


_template_state: Final = StateCodec(Template)
_tally_state: Final = StateCodec(Tally)


class Found(msgspec.Struct, frozen=True, gc=False):
    """What a line turned out to be."""

    template: str
    template_id: str
    parameters: list[str]


class _Known(msgspec.Struct):
    """The template of lines that look alike, and where in them its values lie."""

    number: int  # the cluster
    words: list[Word]
    template_id: str = ""  # that the text and the places are of
    text: str = ""
    places: list[Word] = []


class _EvidenceDrain(Drain):  # type: ignore[misc]  # drain3 has no types
    """Drain's tree over (separators, word, word, ...), so that a leaf holds what has the same length and separators."""

    def __init__(self) -> None:
        super().__init__(depth=4, max_children=1_000_000, param_str=VALUE, parametrize_numeric_tokens=False)
        self.absorbed: list[int] = []  # clusters that became one with the one that was returned

    def replant(self) -> None:
        """Grow the tree anew from the clusters that are left: it keeps the paths of those that are gone."""
        self.root_node = Node()
        for cluster in self.id_to_cluster.values():
            self.add_seq_to_prefix_tree(self.root_node, cluster)

    def fast_match(
        self, cluster_ids: Sequence[int], tokens: Sequence[str], _sim_th: float, _include_params: bool
    ) -> LogCluster | None:
        """The cluster that these tokens are of, or with which there is now evidence that they are one."""
        clusters = (self.id_to_cluster.get(number) for number in cluster_ids[-_LEAF_MAX:])
        leaf = [cluster for cluster in clusters if cluster is not None]
        line = _Tokens(tokens)
        near: dict[int, list[LogCluster]] = {}  # by the one place in which they differ
        for cluster in leaf:
            place = line.difference(cluster.log_template_tokens)
            if place == 0:
                self.absorbed = [one.cluster_id for one in line.also_of(cluster, leaf)]
                return cluster
            if place is not None:
                near.setdefault(place, []).append(cluster)
        for place, alike in near.items():
            if line.has_value_at(place, [cluster.log_template_tokens[place] for cluster in alike]):
                kept, *others = alike
                self.absorbed = [cluster.cluster_id for cluster in others]
                return kept
        return None

    def put_back(self, tokens: Sequence[str]) -> int:
        """A template that was known before a restart; returns its cluster's number."""
        number: int = self.clusters_counter + 1
        self.clusters_counter: int = number
        self.id_to_cluster[number] = cluster = LogCluster(tokens, number)
        self.add_seq_to_prefix_tree(self.root_node, cluster)
        return number

    def get_content_as_tokens(self, content: Sequence[str]) -> Sequence[str]:
        return content  # they are tokens already


class _Tokens:
    """A line's separators and words, as they are compared with those of templates of the same length."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._long = sum(map(_is_long, tokens[1:]))

    def difference(self, template: Sequence[str]) -> int | None:
        """0 if the template is that of the line, the place if they differ in one word only, None if in more."""
        if template == self._tokens:
            return 0
        found = 0
        for place, (ours, theirs) in enumerate(zip(template, self._tokens, strict=True)):
            if ours != theirs and (ours != VALUE or not self._may_be_value(place)):
                if found or place == 0:
                    return None
                found = place
        return found

    def has_value_at(self, place: int, others: Sequence[str]) -> bool:
        """Whether so many words stand in this place of lines that are equal otherwise that it must be a value."""
        seen = {self._tokens[place], *others}
        words = seen - {VALUE}
        if not self._may_be_value(place) or any(word.lower() in _STATES for word in words):
            return False
        enough = _VALUES_FIRST if place == 1 else _VALUES
        return len(seen) >= enough or (VALUE in seen and len(words) >= _VALUES_MIXED + (place == 1))

    def also_of(self, cluster: LogCluster, leaf: Sequence[LogCluster]) -> list[LogCluster]:
        """The other clusters that differ from the line's in one value, of which it is now known that words stand
        there, too."""
        template = cluster.log_template_tokens
        places = [place for place, ours in enumerate(template) if ours != self._tokens[place]]
        if len(places) != 1:
            return []
        place = places[0]
        rest = (*template[:place], *template[place + 1 :])
        found = [
            other
            for other in leaf
            if other is not cluster
            and (*other.log_template_tokens[:place], *other.log_template_tokens[place + 1 :]) == rest
        ]
        words = [other.log_template_tokens[place] for other in found]
        return found if found and self.has_value_at(place, [VALUE, *words]) else []

    def _may_be_value(self, place: int) -> bool:
        """Whether the word there may stand for any other: it names no state, and enough of the line is left."""
        word = self._tokens[place]
        return self._long - _is_long(word) >= _WORDS_LEFT and word.lower() not in _STATES


def _is_long(word: str) -> bool:
    return len(word) > 2 and word != VALUE


class Templates:
    """The templates of one partition's lines. For one thread, but for `listed`."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        self._drain = _EvidenceDrain()
        self._templates: dict[int, Template] = {}
        self._tallies: dict[int, Tally] = {}
        self._numbers: dict[str, int] = {}  # by template_id
        self._known: dict[str, _Known] = {}
        self._new: set[int] = set()  # whose template is to be written
        self._counted: set[int] = set()  # whose tally is to be written
        self._gone: list[str] = []  # template_ids to be deleted
        self._orphans: dict[str, Tally] = {}  # restored before their template

    def see(self, text: str, at: int) -> Found:
        """The template of a text, counted; `at` is when raw-logs took it, ms since the epoch.

        Of a long text it is that of its beginning.
        """
        if len(text) > _TEXT_MAX:
            text = text.lstrip()[:_TEXT_MAX].rsplit(None, 1)[0]
        line = self._masking.line(text)
        known = self._known.get(line.masked)
        template = None if known is None else self._templates.get(known.number)
        if known is None or template is None:
            known = self._learn(line, at)
            template = self._templates[known.number]
        number = known.number
        tally = self._tallies[number]
        tally.count += 1
        if at > tally.last_seen:
            tally.last_seen = at
        self._counted.add(number)
        if known.template_id != template.template_id:
            known.template_id, known.text = template.template_id, template.text
            known.places = [
                word for word, in_template in zip(known.words, template.words, strict=True) if in_template == VALUE
            ]
        return Found(known.text, known.template_id, [line.value(place) for place in known.places])

    def listed(self) -> list[tuple[Template, Tally]]:
        """Every template with its tally, those of the open transaction too; may be called from another thread."""
        tallies = self._tallies
        return [
            (template, tally)
            for number, template in list(self._templates.items())
            if (tally := tallies.get(number)) is not None
        ]

    def changed(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Keys and values of what changed since this was last called; None deletes the key."""
        for template_id in self._gone:
            yield TEMPLATE_KEYS + template_id.encode(), None
            yield TALLY_KEYS + template_id.encode(), None
        for number in sorted(self._new):
            template = self._templates[number]
            yield TEMPLATE_KEYS + template.template_id.encode(), _encode(template)
        for number in sorted(self._counted):
            yield TALLY_KEYS + self._templates[number].template_id.encode(), _encode(self._tallies[number])
        self._gone, self._new, self._counted = [], set(), set()

    def restore(self, key: bytes, value: bytes) -> None:
        """Take back a piece of what `changed` gave, in any order."""
        if key.startswith(TALLY_KEYS):
            self._orphans[key.removeprefix(TALLY_KEYS).decode()] = _tally_state.read(value)
        else:
            template = _template_state.read(value)
            number = self._drain.put_back(_tokens(template.words, template.separators))
            self._keep(number, template, Tally(0, template.first_seen))
        for template_id in [one for one in self._orphans if one in self._numbers]:
            self._tallies[self._numbers[template_id]] = self._orphans.pop(template_id)

    def _learn(self, line: Line, at: int) -> _Known:
        """Find the template of a line that looks like none that is remembered, or make one of it."""
        words, separators = words_of(line)
        texts = [word.text for word in words]
        number = self._numbers.get(template_id := _id_of(texts, separators))
        if number is None:
            number = self._found_by_drain(texts, separators, template_id, line, at)
        if len(self._known) >= _LINES_MAX:
            self._known.clear()
        known = self._known[line.masked] = _Known(number, words)
        return known

    def _found_by_drain(self, texts: list[str], separators: list[str], template_id: str, line: Line, at: int) -> int:
        """The cluster of a text that is no template as it stands: one that it is of, or a new one."""
        drain = self._drain
        drain.absorbed = []
        tokens = _tokens(texts, separators)
        cluster, change = drain.add_log_message(tokens)
        number: int = cluster.cluster_id
        if change == "cluster_created":
            self._make_room()
            self._keep(number, Template(template_id, separators, texts, at, line.text[:_EXAMPLE_MAX]), Tally(0, at))
            self._new.add(number)
        elif change == "cluster_template_changed" or drain.absorbed:
            self._generalize(number, list(cluster.log_template_tokens[1:]), drain.absorbed)
        return number

    def _keep(self, number: int, template: Template, tally: Tally) -> None:
        self._templates[number] = template
        self._tallies[number] = tally
        self._numbers[template.template_id] = number

    def _generalize(self, number: int, words: list[str], absorbed: Sequence[int]) -> None:
        """A word of this template turned out to be a value, and `absorbed` to be the same template."""
        template, tally = self._templates[number], self._tallies[number]
        former = [*template.former_ids, template.template_id]
        for other in absorbed:
            gone, count = self._forget(other)
            former += [*gone.former_ids, gone.template_id]
            tally.count += count.count
            tally.last_seen = max(tally.last_seen, count.last_seen)
            template.first_seen = min(template.first_seen, gone.first_seen)
        if template.template_id != (template_id := _id_of(words, template.separators)):
            self._gone.append(template.template_id)
            del self._numbers[template.template_id]
        else:
            former.remove(template_id)
        # a new object: another thread may be reading the old one
        self._keep(
            number,
            msgspec.structs.replace(
                template,
                template_id=template_id,
                words=words,
                former_ids=list(dict.fromkeys(former))[-IDS_MAX:],
            ),
            tally,
        )
        self._new.add(number)
        self._counted.add(number)

    def _forget(self, number: int) -> tuple[Template, Tally]:
        template, tally = self._templates.pop(number), self._tallies.pop(number)
        self._drain.id_to_cluster.pop(number, None)
        self._numbers.pop(template.template_id, None)
        self._new.discard(number)
        self._counted.discard(number)
        self._gone.append(template.template_id)
        return template, tally

    def _make_room(self) -> None:
        """At the maximum, the tenth that was not seen for longest is forgotten."""
        if len(self._templates) >= TEMPLATES_MAX:
            oldest = sorted(self._tallies, key=lambda number: self._tallies[number].last_seen)
            for number in oldest[: TEMPLATES_MAX // 10]:
                self._forget(number)
            self._drain.replant()


class TemplateMemory:
    """The templates of all partitions, each partition's its own, so that they move with it."""

    def __init__(self) -> None:
        self._masking = Masking()
        self._partitions: dict[int, Templates] = {}

    def see(self, partition: int, text: str, at: int) -> Found:
        return self._of(partition).see(text, at)

    def listed(self) -> list[tuple[Template, Tally]]:
        """The templates of every partition; may be called from another thread."""
        return [one for templates in list(self._partitions.values()) for one in templates.listed()]

    def changed(self) -> Iterator[tuple[int, bytes, bytes | None]]:
        for partition, templates in self._partitions.items():
            for key, value in templates.changed():
                yield partition, key, value

    def owns(self, key: bytes) -> bool:
        """Whether a key of the state topic is one of ours."""
        return key.startswith((TEMPLATE_KEYS, TALLY_KEYS))

    def restore(self, partition: int, key: bytes, value: bytes) -> None:
        self._of(partition).restore(key, value)

    def forget(self, partition: int) -> None:
        self._partitions.pop(partition, None)

    def _of(self, partition: int) -> Templates:
        known = self._partitions.get(partition)
        if known is None:
            known = self._partitions[partition] = Templates(self._masking)
        return known


def _tokens(words: Sequence[str], separators: Sequence[str]) -> tuple[str, ...]:
    return ("\0".join(separators), *words)


def _text_of(words: Sequence[str], separators: Sequence[str]) -> str:
    return "".join(part for pair in zip(separators, [*words, ""], strict=True) for part in pair)


def _id_of(words: Sequence[str], separators: Sequence[str]) -> str:
    """The same for the same text, whichever partition or process finds it."""
    return hashlib.blake2b(_text_of(words, separators).encode(), digest_size=8).hexdigest()
