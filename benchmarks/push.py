"""A client that pushes every file of a folder to ingestion, over a few connections, as fast as it is taken.

    python -m benchmarks.push --url http://127.0.0.1:8001 --folder bodies [--every 0.025 --bodies 1200]

`--every`: a body is due every so many seconds, and late ones at once; `--bodies`: so many, the files over and over.

Prints one line of JSON: when it began and ended (time.monotonic(), which all processes of a machine share), its own CPU
seconds and peak memory, and what each run was told to be accepted. No Idempotency-Key, no source: so every body goes
to a partition of its own.
"""

import argparse
import http.client
import itertools
import json
import os
import queue
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.usage import peak_bytes


class Client:
    """Connections that share a queue of bodies, each due `every` seconds after the one before it."""

    def __init__(self, url: str, bodies: list[Path], connections: int, every: float = 0.0) -> None:
        self._address = urlsplit(url).netloc
        self._bodies: queue.SimpleQueue[tuple[float, Path]] = queue.SimpleQueue()
        begun = time.monotonic()
        for number, body in enumerate(bodies):
            self._bodies.put((begun + number * every, body))
        self._connections = connections
        self.accepted: dict[str, int] = {}
        self._failures: list[str] = []

    def push_all(self) -> None:
        """Push every body once. Raises SystemExit where one was not taken."""
        threads = [threading.Thread(target=self._push, daemon=True) for _ in range(self._connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures or not self._bodies.empty():
            raise SystemExit(f"not all was taken: {self._failures[0] if self._failures else 'connections failed'}")

    def _push(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=120)
        while not self._failures:
            try:
                due, path = self._bodies.get_nowait()
            except queue.Empty:
                break
            body = path.read_bytes()
            time.sleep(max(0.0, due - time.monotonic()))
            connection.request("POST", "/ingest", body, {"Content-Type": "application/x-ndjson"})
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                self._failures.append(f"{response.status}: {answer.decode()}")
                break
            told = json.loads(answer)
            self.accepted[told["run_id"]] = told["accepted"]
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--every", type=float, default=0.0)
    parser.add_argument("--bodies", type=int)
    options = parser.parse_args()
    files = sorted(options.folder.glob("*.ndjson"))
    bodies = list(itertools.islice(itertools.cycle(files), options.bodies or len(files)))
    client = Client(options.url, bodies, options.connections, options.every)
    begun, cpu = time.monotonic(), time.process_time()
    client.push_all()
    ended, used = time.monotonic(), time.process_time() - cpu
    print(
        json.dumps(
            {
                "begun": begun,
                "ended": ended,
                "cpu_seconds": used,
                "peak_bytes": peak_bytes(os.getpid()),
                "accepted": client.accepted,
            }
        )
    )


if __name__ == "__main__":
    main()
