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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

Address = tuple[str, int]

IMPORTS = {"tiny": "", "pandas": "import numpy\nimport pandas\n"}
MODULES = {"tiny": (), "pandas": ("numpy", "pandas")}  # what the bare limit has imported

ANSWER = """

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

# The app "tree" imports a package of 80,000 lines, of which one module is saved.
TREE_MODULES, TREE_LINES, SAVED = 200, 400, 100
FUNCTION = '''

def function_{n}(value, *, step={n}):
    """Module {module} does something of no interest with *value*."""
    total = value + step * {module}
    for turn in range(3):
        total += turn * step
    return {{"total": total, "name": "function_{n} of module {module}"}}
'''

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
    """What is saved of one server's app, and how its text tells a version."""

    path: Path
    fresh: Path  # where a new text is written, on the same file system
    text: Callable[[int], str]

    def save(self, version: int) -> float:
        """Save *version*; return the moment just before the rename."""
        self.fresh.write_text(self.text(version))
        moment = time.monotonic()
        self.fresh.replace(self.path)
        return moment


def made(root: Path, kind: str, ending: str) -> App:
    """Write ROOT/app/app.py of that *kind*, ending in PROCD, WSGI or ASGI; version 0."""
    folder = root / "app"
    folder.mkdir()
    if kind == "tree":
        write_tree(folder, ending)
        app = App(folder / "tree" / f"m{SAVED}.py", root / "fresh", partial(module_text, SAVED))
    else:
        app = App(folder / "app.py", root / "fresh", partial(app_text, kind, ending))
    app.save(0)
    return app


def app_text(kind: str, ending: str, version: int) -> str:
    return IMPORTS[kind] + constant(version) + ANSWER + ending


def constant(version: int) -> str:
    return f"VERSION = {version}  # {'.' * (version % 50)}\n"


def write_tree(folder: Path, ending: str) -> None:
    """Write an app.py and the package that it imports, TREE_MODULES of TREE_LINES each."""
    package = folder / "tree"
    package.mkdir()
    for number in range(TREE_MODULES):
        (package / f"m{number}.py").write_text(module_text(number, 0))
    imports = "".join(f"from tree import m{number}\n" for number in range(TREE_MODULES))
    (package / "__init__.py").write_text(imports)
    (folder / "app.py").write_text(f"from tree.m{SAVED} import VERSION\n{ANSWER}{ending}")


def module_text(number: int, version: int) -> str:
    count = TREE_LINES // FUNCTION.count("\n")
    return constant(version) + "".join(FUNCTION.format(n=n, module=number) for n in range(count))


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
