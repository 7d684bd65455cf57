"""The values of the state topics: JSON objects that carry their schema version, absent while it is 1.

A service reads every older version, step by step, and writes the newest; what a newer service wrote it refuses, since
whatever it made of it would be lost when the newer one comes back.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from shared.errors import StateError

S = TypeVar("S", bound=msgspec.Struct)
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes a value of one version a value of the next."""


class _Version(msgspec.Struct):
    schema: int = 1


class StateCodec(Generic[S]):
    """Reads the values of one state topic. `kind` is the newest version, upgrades lead there from version 1, in order.

    What is written is `kind` itself, whose field `schema` has to be `version`.
    """

    def __init__(self, kind: type[S], upgrades: Sequence[Upgrade] = ()) -> None:
        self.version = 1 + len(upgrades)
        self._upgrades = upgrades
        self._newest = msgspec.json.Decoder(kind)
        self._kind = kind
        self._version = msgspec.json.Decoder(_Version)
        self._any = msgspec.json.Decoder(dict[str, Any])

    def read(self, value: bytes) -> S:
        """A value of any version up to ours. Raises StateError for a newer one, and for what is none."""
        try:
            found = self._version.decode(value).schema
            if found == self.version:
                return self._newest.decode(value)
            if 0 < found < self.version:
                return msgspec.convert(self._upgraded(self._any.decode(value), found), self._kind)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise StateError(f"it holds what is no state: {error}") from None
        raise StateError(f"it has schema {found}, this version reads 1 to {self.version}: run the newer version")

    def _upgraded(self, value: dict[str, Any], version: int) -> dict[str, Any]:
        for upgrade in self._upgrades[version - 1 :]:
            value = upgrade(value)
        return value | {"schema": self.version}
