"""State topics over versions: older values are read, newer ones are refused."""

from typing import Any

import msgspec
import pytest

from shared.errors import StateError
from shared.state import StateCodec
from standardization.transform import PushMemory


class Newest(msgspec.Struct):
    seconds: float
    unit: str = "s"
    schema: int = 3


def _in_seconds(old: dict[str, Any]) -> dict[str, Any]:
    return {"seconds": old["ms"] / 1000}


def _with_unit(old: dict[str, Any]) -> dict[str, Any]:
    return old | {"unit": "s"}


CODEC = StateCodec(Newest, (_in_seconds, _with_unit))


@pytest.mark.parametrize(
    "value",
    [
        b'{"ms":1500}',
        b'{"schema":1,"ms":1500}',
        b'{"schema":2,"seconds":1.5}',
        b'{"schema":3,"seconds":1.5,"unit":"s"}',
    ],
)
def test_every_older_version_is_read_as_the_newest(value: bytes) -> None:
    assert CODEC.read(value) == Newest(1.5, "s", 3)


@pytest.mark.parametrize("schema", [4, 400, 0, -1])
def test_a_version_that_this_one_does_not_know_is_refused_with_the_remedy(schema: int) -> None:
    with pytest.raises(StateError, match=rf"schema {schema}, this version reads 1 to 3: run the newer version"):
        CODEC.read(b'{"schema":%d,"seconds":1.5}' % schema)


@pytest.mark.parametrize("value", [b"", b"[]", b"\xff", b'{"ms":"x","schema":3}', b'{"schema":2}', b'{"schema":"2"}'])
def test_what_is_no_state_is_refused(value: bytes) -> None:
    with pytest.raises(StateError, match="no state"):
        CODEC.read(value)


def test_a_memory_of_pushes_written_before_there_were_versions_is_taken_back_and_a_newer_one_refused() -> None:
    memory = PushMemory()
    memory.restore(3, b"run", b'{"attempt":"first","at":100}')
    assert memory.is_repeat(3, "run:second", 101)
    with pytest.raises(StateError, match="schema 2"):
        memory.restore(3, b"run", b'{"attempt":"first","at":100,"schema":2}')
