"""The bare limit of a reload: fork, import the app, answer. None of procd's promises.

    python -m bench.bare APP_PY PORT MODULE...

Imports the modules once, then reads one byte from its stdin for each save and forks. The child
imports the app from its source and answers on the inherited listener; the one before it is killed
at the fork, whatever it does: connections wait in the backlog meanwhile. No watching, no check of
what changed, no second worker, no readiness. Ends with its stdin.
"""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from bench import apps
from bench.servers import free_port
from tests.service.daemon import REPOSITORY


class Bare:
    """The parent's side, in the bench: the same saves and the same client as for a server."""

    def __init__(
        self, app: apps.App, address: apps.Address, process: subprocess.Popen[bytes]
    ) -> None:
        self.app = app
        self.address = address
        self.process = process
        self.version = 0

    def fork(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"f")
        self.process.stdin.flush()

    def reload(self) -> float | None:
        self.version += 1
        saved = self.app.save(self.version)
        self.fork()
        return apps.until(self.address, self.version, saved)


@contextmanager
def running(kind: str) -> Iterator[Bare]:
    """A bare reloader of procd's own app with the imports of *kind*."""
    root = Path(tempfile.mkdtemp(prefix="pb"))
    app = apps.made(root, kind, apps.PROCD)
    address = ("127.0.0.1", free_port())
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.bare", app.path, str(address[1]), *apps.MODULES[kind]],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
    )
    bare = Bare(app, address, process)
    try:
        bare.fork()
        assert apps.until(address, 0, time.monotonic()) is not None, "the bare side does not answer"
        yield bare
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
        shutil.rmtree(root)


# ---------------------------------------------------------------- its own process


def main(path: Path, port: int, modules: list[str]) -> None:
    for name in (*modules, "procd.app"):  # the app's last import, as a template has it
        importlib.import_module(name)
    gc.freeze()
    child = 0
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        while os.read(0, 1):
            child = replaced(child, lambda: serve(listener, path))
    replaced(child, None)


def replaced(child: int, body: Callable[[], None] | None) -> int:
    """Kill *child* and fork another one that runs *body*, when there is one."""
    if child:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if body is None:
        return 0
    pid = os.fork()
    if pid:
        return pid
    try:
        body()
    finally:
        os._exit(1)


def serve(listener: socket.socket, path: Path) -> None:
    app = ModuleType("app")
    exec(compile(path.read_bytes(), path, "exec"), app.__dict__)  # noqa: S102 - the app is ours
    while True:
        client, _ = listener.accept()
        with client:
            if client.recv(4096):
                client.sendall(app.http())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
