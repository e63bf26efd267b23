"""How each server is started, told of a save, weighed and ended: procd's peers, and procd itself.

All alike: a folder of its own, whose app/ is the working directory and holds app.py alone; the log
beside it, where no reloader looks; a free port of loopback; a session of its own. Every process
below it is known by a variable of its environment and ended by its pid.

Each is started by its documented command line with its own defaults. Where a mode has workers, it
gets them: `uvicorn --reload` has one process only, and its name in the table says so.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import yaml

from bench import apps
from tests.service import leftovers
from tests.service.daemon import NOT_INHERITED, REPOSITORY
from tests.service.shape import Status

START_WITHIN = 30.0  # seconds to the first answer
WARM_WITHIN = 10.0  # seconds for procd's base to have preloaded what the app imported
END_WITHIN = 10.0  # seconds for a graceful stop, then SIGKILL

Argv = Callable[[int, int], list[str]]  # of port and workers


@dataclass(frozen=True)
class Kind:
    """One row of the table."""

    name: str
    module: str
    ending: str
    argv: Argv
    is_hup: bool = False  # told of a save by a HUP; else it watches
    has_workers: bool = True

    @property
    def is_procd(self) -> bool:
        return self.module == "procd"


def gunicorn(*options: str) -> Argv:
    return lambda port, workers: [
        *("gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(workers)),
        *("--no-control-socket", *options, "app:application"),
    ]


def uvicorn(*options: str) -> Argv:
    def argv(port: int, workers: int) -> list[str]:
        count = [] if "--reload" in options else ["--workers", str(workers)]
        return [
            "uvicorn",
            "--port",
            str(port),
            "--no-access-log",
            *count,
            *options,
            "app:application",
        ]

    return argv


def granian(*options: str) -> Argv:
    return lambda port, workers: [
        *("granian", "--interface", "asgi", "--port", str(port), "--workers", str(workers)),
        *(*options, "app:application"),
    ]


def hypercorn(port: int, workers: int) -> list[str]:
    bind = ("--bind", f"127.0.0.1:{port}", "--workers", str(workers))
    return ["hypercorn", *bind, "--reload", "app:application"]


def procd(_port: int, _workers: int) -> list[str]:
    return ["procd", "-c", "../procd.yaml", "start", "--foreground"]


INOTIFY, POLL = ("--reload", "--reload-engine", "inotify"), ("--reload", "--reload-engine", "poll")
PEERS = (
    Kind("gunicorn --reload (inotify)", "gunicorn", apps.WSGI, gunicorn(*INOTIFY)),
    Kind("gunicorn --reload (poll)", "gunicorn", apps.WSGI, gunicorn(*POLL)),
    Kind("gunicorn HUP", "gunicorn", apps.WSGI, gunicorn(), is_hup=True),
    Kind("granian --reload", "granian", apps.ASGI, granian("--reload")),
    Kind("granian HUP", "granian", apps.ASGI, granian(), is_hup=True),
    Kind(
        "uvicorn --reload (1 process)", "uvicorn", apps.ASGI, uvicorn("--reload"), has_workers=False
    ),
    Kind("uvicorn HUP", "uvicorn", apps.ASGI, uvicorn(), is_hup=True),
    Kind("hypercorn --reload", "hypercorn", apps.ASGI, hypercorn),
)
PROCD = Kind("procd", "procd", apps.PROCD, procd)
PROCD_HUP = Kind("procd HUP", "procd", apps.PROCD, procd, is_hup=True)


class FailedToStartError(Exception):
    """The last lines of the server's log."""


class Server:
    """One server that was started; `with running(...) as server` ends it."""

    def __init__(self, kind: Kind, app_kind: str, workers: int, preload: object = "auto") -> None:
        self.kind = kind
        self.root = Path(tempfile.mkdtemp(prefix="pb"))
        self.app = apps.made(self.root, app_kind, kind.ending)
        self.version = 0
        self.saved = 0.0  # the moment of the last save
        self.address = ("127.0.0.1", free_port())
        self.marker = uuid.uuid4().hex
        self.log = self.root / "log"
        if kind.is_procd:
            self._configure(workers, preload)
        began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *kind.argv(self.address[1], workers)],
                cwd=self.root / "app",
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.cold = self._until_first_answer(began)
        except BaseException:
            self.end()
            raise

    def _configure(self, workers: int, preload: object) -> None:
        settings = {
            "app": "app:server",
            "chdir": "app",
            "listen": [f"tcp://127.0.0.1:{self.address[1]}"],
            "worker_num": workers,
            "task_worker_num": 0,
            "preload": preload,
            "watch_file": not self.kind.is_hup,
            "run_dir": "../run",
            "state_dir": "../state",
            "master_pid_file": None,
            "worker_pid_file": None,
            "log_file": None,
        }
        (self.root / "procd.yaml").write_text(yaml.safe_dump(settings))

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
        # Bytecode may be written and is cached where it always is: that is what users have.
        return kept | {leftovers.MARKER: self.marker, "PYTHONPATH": str(REPOSITORY)}

    def _until_first_answer(self, began: float) -> float:
        while time.monotonic() < began + START_WITHIN and self.process.poll() is None:
            if apps.ask(self.address) == 0:
                return time.monotonic() - began
            time.sleep(apps.POLL)
        text = self.log.read_text(errors="replace").strip()
        raise FailedToStartError(text.rpartition("\n")[2] or "no answer")

    # -- what is done to it --------------------------------------------------------------------

    def tell(self) -> None:
        """After a save: HUP where the server does not watch."""
        if self.kind.is_hup:
            self.process.send_signal(signal.SIGHUP)

    def reload(self) -> float | None:
        """Save the next version; return the seconds to its first answer, None = missed."""
        self.version += 1
        self.saved = self.app.save(self.version)
        self.tell()
        return apps.until(self.address, self.version, self.saved)

    def settle(self) -> float:
        """Wait until another save is fair; return the moment of the last answer of old code."""
        last = apps.until_alone(self.address, self.version)
        time.sleep(apps.SETTLE)
        return last

    def wait_until_warm(self) -> None:
        """procd: wait until the base has preloaded what the app imported."""
        deadline = time.monotonic() + WARM_WITHIN
        while self.kind.is_procd and time.monotonic() < deadline:
            if self.status()["base"]["is_warm"]:
                return
            time.sleep(0.05)

    def status(self) -> Status:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "procd",
                "-c",
                str(self.root / "procd.yaml"),
                "status",
                "--json",
            ],
            env=self.environment(),
            capture_output=True,
            check=True,
            timeout=30,
        )
        status: Status = json.loads(done.stdout)
        return status

    def pss(self) -> int:
        """Bytes of the whole tree; memory that several processes share is counted once."""
        total = 0
        for pid in leftovers.marked(self.marker):
            with suppress(OSError):  # it ended meanwhile
                rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
        return total * 1024

    # -- the end -------------------------------------------------------------------------------

    def end(self) -> None:
        """Stop it gracefully, then by force; nothing of it is left."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_WITHIN)
        while left := leftovers.marked(self.marker):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.process.wait()
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def running(kind: Kind, app: str, workers: int, preload: object = "auto") -> Iterator[Server]:
    """Raise FailedToStartError when it does not answer, or is not there at all."""
    if find_spec(kind.module) is None:
        raise FailedToStartError("not installed")
    server = Server(kind, app, workers, preload)
    try:
        yield server
    finally:
        server.end()


def preload(text: str) -> str | list[str]:
    """Turn an option into procd's key: auto, off, or names with commas between them."""
    return text if text in {"auto", "off"} else text.split(",")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
