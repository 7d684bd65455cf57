"""Whether the service on a port of this container is ready: exit code 0 if so, else 1 and its reasons on stdout.

The images' health check. It runs every few seconds for as long as a container lives, so it imports next to nothing:

    python -IS compose/ready.py 8001
"""

import socket
import sys

PATIENCE_S = 3.0


def answer(port: int, path: str = "/ready") -> tuple[int, str]:
    """The status and body of a GET on loopback. Raises OSError, or ValueError when what answers is no HTTP."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        said = b""
        while piece := connection.recv(65536):
            said += piece
    head, _, body = said.partition(b"\r\n\r\n")
    protocol, _, rest = head.decode("latin-1").partition(" ")
    if not protocol.startswith("HTTP/"):
        raise ValueError(f"port {port} speaks no HTTP")
    return int(rest[:3]), body.decode(errors="replace")


def main(port: int) -> int:
    try:
        status, body = answer(port)
    except (OSError, ValueError) as error:
        sys.stdout.write(f"port {port}: {error}\n")
        return 1
    sys.stdout.write(body + "\n")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
