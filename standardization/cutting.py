"""Making a record fit its limit: its largest values are cut, and named in `truncated_fields`."""

from typing import Any, Final

import msgspec

from shared.records import Record, Scalar
from standardization.refused import cut

_encode: Final = msgspec.json.Encoder().encode
_LARGE: Final = 1024  # bytes; smaller values are not cut
_KEEP: Final = 256  # bytes that a cut value keeps at least
_NAME: Final = 100  # characters of a name in truncated_fields
_TEXTS: Final = ("body", "service_name", "event_name", "severity_text")
_MAPS: Final = ("resource", "attributes")
_MARKS_BYTES: Final = 80  # "truncated_fields":[] and "original_bytes":n


def fit(record: Record, original_bytes: int, limit: int) -> tuple[Record, bytes]:
    """The record and its line, of at most `limit` bytes (at least 16 KiB).

    The largest texts are cut first, each as little as needed. Where that is not enough, because there are too many
    small ones or the names are what is large, the largest entries of resource and attributes are left out.
    """
    encoded = _encode(record)
    if len(encoded) <= limit:
        return record, encoded
    record = msgspec.structs.replace(record, original_bytes=original_bytes)
    record = _with_texts_cut(record, len(encoded) + _MARKS_BYTES - limit)
    encoded = _encode(record)
    if len(encoded) > limit:
        record = _with_entries_left_out(record, limit)
        encoded = _encode(record)
    return record, encoded


def _with_texts_cut(record: Record, excess: int) -> Record:
    """Cut the largest texts until `excess` bytes are gained, or none is large any more."""
    texts: dict[str, Any] = {name: getattr(record, name) for name in _TEXTS}
    maps: dict[str, dict[str, Scalar]] = {name: dict(getattr(record, name)) for name in _MAPS}
    large = [
        (len(_encode(value)), f"{where}.{name}" if where else name, holder, name)
        for where, holder in (("", texts), *maps.items())
        for name, value in holder.items()
        if isinstance(value, str) and len(value) > _LARGE // 6  # a character takes up to 6 bytes
    ]
    truncated: list[str] = []
    for size, label, holder, name in sorted(large, key=lambda one: one[0], reverse=True):
        if excess <= 0 or size <= _LARGE:
            break
        label = cut(label, _NAME)
        excess += len(_encode(label)) + 1
        holder[name] = _shortened(holder[name], max(_KEEP, size - excess))
        excess -= size - len(_encode(holder[name]))
        truncated.append(label)
    return msgspec.structs.replace(record, **texts, **maps, truncated_fields=tuple(truncated))


def _shortened(text: str, size: int) -> str:
    """The longest beginning of the text, or nearly, whose JSON has at most `size` bytes."""
    while (now := len(_encode(text))) > size:
        text = text[: min(len(text) - 1, len(text) * size // now)]
    return text


def _with_entries_left_out(record: Record, limit: int) -> Record:
    """Keep the smallest entries of resource and attributes that fit."""
    named = tuple(name for name in record.truncated_fields if name in _TEXTS)
    bare = msgspec.structs.replace(record, resource={}, attributes={}, truncated_fields=(*named, *_MAPS))
    left = limit - len(_encode(bare)) - len('"resource":{},"attributes":{},')
    kept: dict[str, set[str]] = {name: set() for name in _MAPS}
    sizes = sorted(
        (len(_encode({key: value})), where, key) for where in _MAPS for key, value in getattr(record, where).items()
    )
    for size, where, key in sizes:
        left -= size
        if left < 0:
            break
        kept[where].add(key)
    maps = {where: {k: v for k, v in getattr(record, where).items() if k in kept[where]} for where in _MAPS}
    lost = tuple(where for where in _MAPS if len(maps[where]) < len(getattr(record, where)))
    return msgspec.structs.replace(record, **maps, truncated_fields=(*named, *lost))
