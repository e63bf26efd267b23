"""The apps of bench.reload and bench.endurance, as text, and how a save is timed.

Every server runs the same module: the same imports, the same VERSION, the same answer() over plain
HTTP/1.1. Only the last lines differ: a WSGI or ASGI callable for the peers; for procd, which has
no HTTP of its own, a handler that answers one request of one read by hand.

A save is what a careful editor does: the new text is written outside of what anybody watches and
renamed into place, which is one event. Each version's text has a size of its own, and callers
leave SETTLE between two saves: a server that trusts a .pyc by its second and its size, as Python
itself does, is not caught out here.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Address = tuple[str, int]

IMPORTS = {"tiny": "", "pandas": "import numpy\nimport pandas\n"}
MODULES = {"tiny": (), "pandas": ("numpy", "pandas")}

COMMON = """\
VERSION = 0


def answer():
    return f"version {VERSION}\\n".encode()
"""

PROCD = """
from procd import Server

server = Server()


def http():
    body = answer()
    return b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body)


@server.on_receive
async def receive(conn, data):
    conn.send(http())
"""

WSGI = """

def application(environ, start_response):
    body = answer()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = """

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = answer()
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})
"""

SETTLE = 1.1  # seconds between two saves: more than the whole second of a .pyc
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
ANSWER_WITHIN = (
    0.25  # seconds, then the client connects anew: its connection may rest with the dead
)
POLL = 0.001  # seconds between two requests
PATIENCE = 15.0  # seconds for a save to be served, then it is missed
IN_A_ROW = 30  # new answers, one after the other: the old code is gone


@dataclass(frozen=True)
class App:
    """The app.py of one server: *kind* of IMPORTS, ending in PROCD, WSGI or ASGI."""

    path: Path
    kind: str
    ending: str

    def text(self, version: int) -> str:
        common = COMMON.replace("VERSION = 0", f"VERSION = {version}  # {'.' * (version % 50)}")
        return IMPORTS[self.kind] + common + self.ending

    def save(self, version: int) -> float:
        """Save *version*; return the moment just before the rename."""
        fresh = self.path.parent.with_suffix(".fresh")  # beside the folder: same file system
        fresh.write_text(self.text(version))
        moment = time.monotonic()
        fresh.replace(self.path)
        return moment


# ---------------------------------------------------------------- asking


def ask(address: Address) -> int | None:
    """Say which version answers, on a new connection; None when none does in ANSWER_WITHIN."""
    with suppress(OSError, ValueError), socket.create_connection(address, ANSWER_WITHIN) as sock:
        sock.sendall(REQUEST)
        data = b""
        while not data.endswith(b"\n") or b"\nversion " not in data:
            part = sock.recv(4096)
            if not part:
                return None
            data += part
        return int(data.rpartition(b"version ")[2])
    return None


def until(address: Address, version: int, began: float, patience: float = PATIENCE) -> float | None:
    """Seconds from *began* to the first answer of *version*; None when that takes too long."""
    while time.monotonic() < began + patience:
        if ask(address) == version:
            return time.monotonic() - began
        time.sleep(POLL)
    return None


def until_alone(address: Address, version: int) -> float:
    """Wait until the answers are *version* only; return the moment of the last that was not."""
    last, row = time.monotonic(), 0
    deadline = last + PATIENCE
    while row < IN_A_ROW and time.monotonic() < deadline:
        row += 1
        if ask(address) != version:
            last, row = time.monotonic(), 0
        time.sleep(POLL)
    return last
