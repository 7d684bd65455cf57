"""What the store needs of a SQL engine; embedded.py and server.py are the two there are."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from processing.store.schema import Table
from shared.errors import StoreError

Parameters = Mapping[str, object]


class RowRejectedError(StoreError):
    """The engine can't read a line of a batch; nothing of that table's lines was stored.

    Trying again does not help: take out what `invalid_lines` names, then insert the same batch again.
    """

    def __init__(self, table: str, detail: str) -> None:
        super().__init__(f"a line for table {table} was rejected: {detail}")
        self.table = table
        self.detail = detail


class Engine(Protocol):
    """ClickHouse SQL, somewhere. Every method may be called from any thread, and raises StoreError."""

    def execute(self, sql: str) -> None:
        """Run a statement that answers nothing."""

    def use(self, database: str) -> None:
        """Make this the database of unqualified names, for all that follows."""

    def query(self, sql: str, parameters: Parameters) -> list[dict[str, Any]]:
        """Rows of a SELECT. `{name:Type}` in the SQL takes its value from the parameters.

        Instants come as RFC 3339 text with all their digits, integers exact, NaN and infinities as None.
        """

    def insert(self, table: Table, lines: Sequence[bytes], parameters: Parameters, token: str) -> None:
        """Insert lines of JSON as one block per table partition, in their order; each element may hold several.

        Under a token that the table knows nothing changes. Raises RowRejectedError.
        """

    def close(self) -> None:
        """Release the engine; nothing may be called after."""


READ_LINES: dict[str, int] = {
    # one thread and no parallel parsing: the blocks of an insert, and so their tokens, must be the same each time
    "max_threads": 1,
    "max_insert_threads": 1,
    "input_format_parallel_parsing": 0,
    "async_insert": 0,
    "insert_deduplicate": 1,
    "max_partitions_per_insert_block": 0,  # a refused block would be refused for ever
    "optimize_on_insert": 0,  # rows of one key are merged when parts are: doing it here, too, is done twice
}

READ_RESULTS: dict[str, int | str] = {
    "date_time_output_format": "iso",
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_denormals": 0,
    "optimize_use_projections": 1,
}


_row = msgspec.json.Decoder(dict[str, Any])


def rows_of(answer: bytes) -> list[dict[str, Any]]:
    """Decode JSONEachRow. Text that is not UTF-8, which only a foreign producer writes, is shown with U+FFFD."""
    return _row.decode_lines(answer.decode(errors="replace"))


# What the engine says of data it can't read, by ClickHouse's error codes: bad numbers, text, escapes, times, JSON.
_UNREADABLE = {6, 25, 26, 27, 32, 33, 34, 38, 41, 53, 69, 70, 72, 117, 130, 131, 190, 321, 349, 407, 467, 469, 636, 676}

_CODE = re.compile(r"Code: (\d+)\. DB::Exception: (.*)", re.DOTALL)


def rejection(table: Table, message: str) -> StoreError:
    """The error of an insert that the engine answered with this: RowRejectedError where the lines are to blame."""
    if (found := _CODE.search(message)) and int(found[1]) in _UNREADABLE:
        return RowRejectedError(table.name, found[2][:500])
    return StoreError(f"insert into {table.name} failed: {message[:2000]}")
