"""ClickHouse's HTTP interface in front of the embedded engine, as far as clickhouse-connect asks for it.

The client and the engine are the real ones; only this front is a stand-in, for machines that have no ClickHouse server.
It runs as a process of its own, since a process can have the engine open on one folder only:

    python -m tests.contract.clickhouse_server FOLDER     (prints its port)
"""

import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from chdb import _chdb

_NO_SETTINGS = {
    "query",
    "database",
    "default_format",
    "session_id",
    "client_protocol_version",
    "query_id",
    "wait_end_of_query",
}
_INPUT = re.compile(r"FROM input\(('(?:[^'\\]|\\.)*')\) FORMAT JSONEachRow$")


class Handler(BaseHTTPRequestHandler):
    """Answers /ping, and queries with settings and parameters in the URL."""

    protocol_version = "HTTP/1.1"
    target: str

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/ping":
            self._answer(200, b"Ok.\n")
        else:
            self._run(b"")

    def do_POST(self) -> None:
        self._run(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _run(self, body: bytes) -> None:
        asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        sql, data = (asked["query"], body) if "query" in asked else (body.decode(), b"")
        parameters = {name.removeprefix("param_"): text for name, text in asked.items() if name.startswith("param_")}
        settings = {
            name: text for name, text in asked.items() if name not in _NO_SETTINGS and f"{name}"[:6] != "param_"
        }
        connection = _chdb.connect(self.target)  # type: ignore[attr-defined]  # an extension module without stubs
        try:
            if database := asked.get("database"):
                connection.query(f"USE {database}", "Null")
            for name, text in settings.items():
                connection.query(f"SET {name} = {_quoted(text)}", "Null")
            answer = _query(
                connection, sql.rstrip().rstrip(";"), data, parameters, asked.get("default_format", "TabSeparated")
            )
        except RuntimeError as error:
            self._failed(str(error))
        else:
            self._answer(200, answer)
        finally:
            connection.close()

    def _failed(self, message: str) -> None:
        code = re.search(r"Code: (\d+)", message)
        self._answer(500, message.encode(), {"X-ClickHouse-Exception-Code": code[1] if code else "1002"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in {**(headers or {}), "X-ClickHouse-Summary": "{}", "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are no news."""


class Server(ThreadingHTTPServer):
    """Takes a client that was killed, as tests do, for no error."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _query(connection: Any, sql: str, data: bytes, parameters: dict[str, str], default_format: str) -> bytes:
    if not (found := _INPUT.search(sql)):
        return bytes(connection.query(sql, default_format, params=parameters).bytes())
    # the embedded engine has no body to read from, so the lines come from a file in memory
    with os.fdopen(os.memfd_create("body"), "wb") as file:
        file.write(data)
        file.flush()
        source = f"FROM file('/proc/self/fd/{file.fileno()}', JSONEachRow, {found[1]})"
        connection.query(sql[: found.start()] + source, "Null", params=parameters)
    return b""


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def main() -> None:
    # a server's own setting; where tests find what BACKUP wrote
    Handler.target = f"{sys.argv[1]}?backups.allowed_path={sys.argv[1]}/backups"
    keeps_engine = _chdb.connect(Handler.target)  # type: ignore[attr-defined]  # an extension module without stubs
    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # until the parent ends or closes it
    server.shutdown()
    keeps_engine.close()


if __name__ == "__main__":
    main()
