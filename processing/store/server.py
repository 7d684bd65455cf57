"""A ClickHouse server or cluster, over HTTP, through clickhouse-connect."""

from collections.abc import Sequence
from typing import Any, Final

import clickhouse_connect
from clickhouse_connect.driver.exceptions import Error as ClientError

from processing.store.engine import READ_LINES, READ_RESULTS, Parameters, rejection, rows_of
from processing.store.schema import Table, quoted
from shared.errors import StoreError

_TIMEOUT_SECONDS: Final = 60


class ServerEngine:
    """A server's HTTP interface. The client keeps no session, so any number of threads may use it at once."""

    def __init__(self, url: str) -> None:
        try:
            self._client = clickhouse_connect.get_client(
                dsn=url,
                database="default",
                autogenerate_session_id=False,
                send_receive_timeout=_TIMEOUT_SECONDS,
                client_name="sluice",
            )
        except ClientError as error:
            raise StoreError(f"the ClickHouse server of CLICKHOUSE_URL can't be used: {error}") from None

    def execute(self, sql: str) -> None:
        try:
            self._client.command(sql)
        except ClientError as error:
            raise StoreError(f"the store failed: {error}") from None

    def use(self, database: str) -> None:
        self._client.database = database

    def query(self, sql: str, parameters: Parameters) -> list[dict[str, Any]]:
        try:
            return rows_of(
                self._client.raw_query(sql, parameters=dict(parameters), settings=dict(READ_RESULTS), fmt="JSONEachRow")
            )
        except ClientError as error:
            raise StoreError(f"the store failed: {error}") from None

    def insert(self, table: Table, lines: Sequence[bytes], parameters: Parameters, token: str) -> None:
        sql = f"{table.insert(f'input({quoted(table.structure())})')} FORMAT JSONEachRow"
        try:
            self._client.command(
                sql,
                parameters=dict(parameters),
                data=b"\n".join(lines),
                settings={**READ_LINES, "insert_deduplication_token": token},
            )
        except ClientError as error:
            raise rejection(table, str(error)) from None

    def close(self) -> None:
        self._client.close()
