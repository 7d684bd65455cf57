"""Samples of GPU telemetry: an entry as NVIDIA's DCGM exporter names it, in OpenTelemetry's names and units.

An entry is a sample when it has a metric name that begins with DCGM_FI_, a GPU's uuid and a value, whatever the order
and case of its keys. Any other entry that only looks like one stays what it would have been: a record.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, NamedTuple

from shared.dcgm import PREFIX, Field, field_of, is_blank_reading
from shared.errors import Reason
from shared.records import Record, Sample, Scalar
from standardization import timestamps
from standardization.choice import Choice
from standardization.fields import NUMBER, TEXT, Leaf, free_name
from standardization.mapping import DECLARED_SOURCE, Arrival, BatchMapper, Plan
from standardization.refused import Refused, cut
from standardization.values import Unreadable, is_blank, number

_METRIC_NAME: Final = re.compile(r"DCGM_FI_[A-Z0-9_]{1,120}", re.ASCII)
_TEXT_MAX: Final = 16 * 1024  # characters of all of an entry's text; a longer entry is no sample

_ROLES: Final = {
    "metric_name": "metric", "__name__": "metric",
    "uuid": "uuid",
    "value": "value",
    "timestamp": "timestamp",
    "gpu_id": "gpu_index", "gpu": "gpu_index",
    "device": "device",
    "modelname": "model", "model_name": "model",
    "hostname": "host", "host_name": "host",
    "container": "container",
    "pod": "pod",
    "namespace": "namespace",
    "labels_raw": "labels",
    "gpu_i_id": "instance",
}  # fmt: skip
_NEEDED: Final = frozenset({"metric", "uuid", "value"})
# labels that say again what a column says
_REPEATED: Final = frozenset({"__name__", "uuid", "gpu"})
_FILLED_BY_LABEL: Final = {
    "container": "container", "pod": "pod", "namespace": "namespace", "gpu_i_id": "instance",
    "hostname": "host", "modelname": "model", "device": "device",
}  # fmt: skip

_LABEL: Final = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*+)"\s*(?:,|$)')
_ESCAPE: Final = re.compile(r"\\(.)")
_LABELS_KEPT: Final = 2048  # characters; labels repeat from sample to sample, but a long text is not kept
_MIG: Final = re.compile(r"MIG-(GPU-[^/]+)/.*")
_ACCEPTED: Final = "a number, or a blank such as N/A"

_time_of_text: Final = timestamps.of_text("")
_time_of_number: Final = timestamps.of_number("")


class _NotASample(Exception):  # noqa: N818 - a finding, and no error
    """The entry looks like a sample and is none."""


# of entries that are records
RecordPlan = Callable[[tuple[Leaf, ...]], "Plan | Choice"]


def plan_of(leaves: tuple[Leaf, ...], record_plan: RecordPlan) -> "Plan | Choice | GpuPlan":
    """What becomes of entries of this shape: samples, where it has the keys of one, else records."""
    roles = _roles(leaves)
    return GpuPlan(leaves, roles, record_plan) if roles.keys() >= _NEEDED else record_plan(leaves)


def _roles(leaves: Sequence[Leaf]) -> dict[str, int]:
    """Which leaf fills which part of a sample; of two the first, in the order of _ROLES."""
    by_name = {
        leaf.path[0].strip().lower(): place
        for place, leaf in reversed(list(enumerate(leaves)))
        if len(leaf.path) == 1 and leaf.kind in (TEXT, NUMBER)
    }
    found: dict[str, int] = {}
    for name, role in _ROLES.items():
        if name in by_name:
            found.setdefault(role, by_name[name])
    return found


class GpuPlan:
    """What becomes of the leaves of a shape that has the keys of a sample. Used like a mapping.Plan."""

    def __init__(self, leaves: tuple[Leaf, ...], roles: Mapping[str, int], record_plan: RecordPlan) -> None:
        self._leaves = leaves
        self._roles = dict(roles)
        named = set(roles.values())
        self._others = [(place, leaf.name) for place, leaf in enumerate(leaves) if place not in named]
        self._names_size = sum(len(name) for _, name in self._others)
        self._make_record_plan = record_plan
        self._record_plan: Plan | Choice | None = None

    def settle(self, values: list[Any], record_id: str, arrival: Arrival) -> Record | Sample:
        """The sample of an entry, or its record where it is none. Raises Refused where it can't be read."""
        try:
            return self._sample(values, record_id, arrival)
        except _NotASample:
            if self._record_plan is None:
                self._record_plan = self._make_record_plan(self._leaves)
            return self._record_plan.settle(values, record_id, arrival)

    def mapper(self, attribute_of: Sequence[str]) -> BatchMapper:
        """A mapper of objects that have each leaf as the (dotted) attribute listed. It does not settle."""
        values_of = attrgetter(*attribute_of)  # a sample has three leaves at least, so this gives a tuple

        def mapped(
            entries: Sequence[Any], record_ids: Sequence[str], arrivals: Sequence[Arrival]
        ) -> tuple[list[Record | Sample], list[int]]:
            samples: list[Record | Sample] = []
            unreadable: list[int] = []
            for position, (entry, record_id, arrival) in enumerate(zip(entries, record_ids, arrivals, strict=True)):
                try:
                    samples.append(self._sample(values_of(entry), record_id, arrival))
                except (_NotASample, Refused):
                    unreadable.append(position)
            return samples, unreadable

        return mapped

    def _sample(self, values: Sequence[Any], record_id: str, arrival: Arrival) -> Sample:
        roles = self._roles
        name, uuid = values[roles["metric"]], values[roles["uuid"]]
        if not isinstance(name, str) or not name.startswith(PREFIX) or not _METRIC_NAME.fullmatch(name):
            raise _NotASample
        if not isinstance(uuid, str) or is_blank(uuid):
            raise _NotASample
        if self._names_size + sum(len(value) for value in values if isinstance(value, str)) > _TEXT_MAX:
            raise _NotASample
        field = field_of(name)
        labels = labels_of(self._text(values, "labels") or "")
        attributes: dict[str, Scalar] = {**field.attributes, **labels.others}
        numbers: dict[str, int] = {}
        for place, other in self._others:
            if not is_blank(values[place]):
                attributes[free_name(other, attributes, numbers)] = values[place]
        if arrival.source is not None:
            attributes[DECLARED_SOURCE] = arrival.source
        hw_id, parent = _identity(uuid.strip(), self._text(values, "instance") or labels.filled.get("instance"))
        return Sample(
            record_id=record_id,
            timestamp=self._timestamp(values) or arrival.observed_timestamp,
            observed_timestamp=arrival.observed_timestamp,
            hw_id=hw_id,
            metric=field.metric,
            source_metric=name,
            unit=field.unit,
            value=self._value(values, field),
            run_id=arrival.run_id,
            origin=arrival.origin,
            host_name=self._text(values, "host") or labels.filled.get("host"),
            hw_model=self._text(values, "model") or labels.filled.get("model"),
            hw_parent=parent,
            gpu_index=self._gpu_index(values),
            device=self._text(values, "device") or labels.filled.get("device"),
            container=self._text(values, "container") or labels.filled.get("container"),
            pod=self._text(values, "pod") or labels.filled.get("pod"),
            namespace=self._text(values, "namespace") or labels.filled.get("namespace"),
            attributes=attributes,
        )

    def _text(self, values: Sequence[Any], role: str) -> str | None:
        """The value as text, None where there is none or it is blank."""
        place = self._roles.get(role)
        if place is None:
            return None
        value = values[place]
        if value is None or is_blank(value):
            return None
        return value.strip() if isinstance(value, str) else str(value)

    def _gpu_index(self, values: Sequence[Any]) -> int | None:
        text = self._text(values, "gpu_index")
        return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 9 else None

    def _timestamp(self, values: Sequence[Any]) -> str | None:
        place = self._roles.get("timestamp")
        if place is None or (value := values[place]) is None:
            return None
        try:
            return _time_of_text(value) if isinstance(value, str) else _time_of_number(value)
        except Unreadable as error:
            raise self._invalid("timestamp", value, str(error)) from None

    def _value(self, values: Sequence[Any], field: Field) -> float | None:
        value = values[self._roles["value"]]
        if is_blank(value) or (isinstance(value, str) and value.startswith("<<<")):  # DCGM's blanks of text
            return None
        if isinstance(value, bool):
            raise self._invalid("value", value, _ACCEPTED)
        try:
            reading = float(number(value.strip(), _ACCEPTED) if isinstance(value, str) else value)
        except (ValueError, OverflowError):  # Unreadable is one, and so is what int() says of thousands of digits
            raise self._invalid("value", value, _ACCEPTED) from None
        if is_blank_reading(reading, field):
            return None
        return reading * field.multiplier / field.divisor

    def _invalid(self, role: str, value: Any, accepted: str) -> Refused:
        name = self._leaves[self._roles[role]].name
        return Refused(Reason.INVALID_FIELD, f"{cut(name, 60)} is {cut(repr(value), 60)}; accepted: {accepted}")


class Labels(NamedTuple):
    """The labels of a sample: those that fill a part of it, and the rest."""

    filled: Mapping[str, str]
    others: Mapping[str, str]


def labels_of(text: str) -> Labels:
    """Labels as Prometheus writes them, `k="v",k="v"`; a text that is not so is kept as the label `labels_raw`."""
    return _labels_of(text) if len(text) <= _LABELS_KEPT else _labels_of.__wrapped__(text)


@lru_cache(maxsize=8192)
def _labels_of(text: str) -> Labels:
    filled: dict[str, str] = {}
    others: dict[str, str] = {}
    at = 0
    inner = text.strip().removeprefix("{").removesuffix("}")
    while at < len(inner):
        found = _LABEL.match(inner, at)
        if found is None:
            return Labels({}, {"labels_raw": text})
        at = found.end()
        name, value = found[1], _ESCAPE.sub(_unescaped, found[2])
        known = name.lower()
        if known in _REPEATED or not value:
            continue
        if known in _FILLED_BY_LABEL:
            filled[_FILLED_BY_LABEL[known]] = value
            if known != "gpu_i_id":
                continue
        others[name] = value
    return Labels(filled, others)


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


@lru_cache(maxsize=8192)
def _identity(uuid: str, instance: str | None) -> tuple[str, str | None]:
    """(hw.id, the GPU that it is a part of): a MIG instance is a device of its own.

    Its id has no slash, so that it can stand in a URL's path.
    """
    if old_style := _MIG.fullmatch(uuid):
        return uuid.replace("/", ":"), old_style[1]
    uuid = uuid.replace("/", ":")
    if instance is None or uuid.startswith("MIG-"):
        return uuid, None
    return f"{uuid}:mig-{instance.replace('/', ':')}", uuid
