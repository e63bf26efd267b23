"""One procd service under test: its folder, its config, its commands, its clients.

Knows the public interface (command line, YAML, status --json, files named in the config) and
nothing of procd's inside. Every wait has a deadline; every process that it signals carries its own
marker.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.service import leftovers
from tests.service.client import Address, Client
from tests.service.shape import Process, Status

REPOSITORY = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"
# Small and impatient, so that a test which fails does so soon.
DEFAULTS: dict[str, Any] = {
    "app": "app:server",
    "listen": ["tcp://127.0.0.1:0"],
    "worker_num": 2,
    "task_worker_num": 2,
    "max_wait_time": 5,
    "boot_timeout": 10,
    "watch_file": False,
    "task_slots": 4096,
}
NOT_INHERITED = ("PROCD_", "LISTEN_", "NOTIFY_", "PYTHONDONTWRITEBYTECODE", "WATCHDOG_")

T = TypeVar("T")
Done = subprocess.CompletedProcess[str]


def scaled(count: int, divide: int = 20) -> int:
    """*count* when PROCD_TORTURE is set, else a twentieth, or another part, of it."""
    return count if os.environ.get("PROCD_TORTURE") else max(1, count // divide)


def pause(seconds: float) -> None:
    """Let the others run; for polls with a deadline and for measuring windows only."""
    select.select([], [], [], seconds)


def eventually(predicate: Callable[[], T], seconds: float, what: str = "") -> T:
    """Return the first true value of *predicate*; AssertionError after *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or predicate}"
        pause(0.02)


class Service:
    """A service in a folder of its own under /tmp (short: a Unix path has 108 bytes)."""

    def __init__(self, app: str = "repl.py", **config: Any) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="pd", dir="/tmp"))
        self.marker = uuid.uuid4().hex
        self.config_path = self.root / "procd.yaml"
        self.app_path = self.root / "app.py"
        self.ledger_path = self.root / "ledger"
        self.foreground: subprocess.Popen[bytes] | None = None
        self.keeps_tasks = False  # the test leaves tasks in state_dir on purpose
        self._address: Address | None = None  # of the first listener, from one start to the next
        self.config = DEFAULTS | config
        self.extra_environment: dict[str, str] = {}
        shutil.copy(APPS / app, self.app_path)
        self.configure()
        self.queues_before = leftovers.queues()

    # -- files ---------------------------------------------------------------------------------

    def configure(self, **changes: Any) -> None:
        """Write procd.yaml anew with *changes*."""
        self.config = self.config | changes
        self._replace(self.config_path, yaml.safe_dump(self.config))

    def edit(self, old: str, new: str) -> None:
        """Change the app's source; *old* must be there."""
        text = self.app_path.read_text()
        assert old in text
        self._replace(self.app_path, text.replace(old, new))

    def _replace(self, path: Path, text: str) -> None:
        # A reader never sees half a file: a reload in that moment would be refused.
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(text)
        fresh.replace(path)

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    def log(self) -> str:
        path = self.run_dir / "procd.log"
        # Not what only looks like a file: /dev/full never ends.
        return path.read_text(errors="replace") if path.is_file() else ""

    def ledger(self, kind: str) -> list[list[Any]]:
        """The entries that the app noted as *kind*, without that word."""
        if not self.ledger_path.exists():
            return []
        rows = [json.loads(line) for line in self.ledger_path.read_text().splitlines()]
        return [row[1:] for row in rows if row[0] == kind]

    def runs(self) -> Counter[Any]:
        """How often each task ran, by its number."""
        return Counter(row[0] for row in self.ledger("ran"))

    # -- commands ------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
        mine = {
            leftovers.MARKER: self.marker,
            "LEDGER": str(self.ledger_path),
            "PYTHONPATH": str(REPOSITORY),
        }
        return kept | mine | self.extra_environment

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "procd", "-c", str(self.config_path), *words]

    def run(self, *words: str, timeout: float = 60) -> Done:
        """Run one procd command to its end, from a folder that is not the service's."""
        if words[0] in {"start", "restart"}:
            self._address = None  # port 0 is another one then
        return subprocess.run(
            self.argv(*words),
            env=self.environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ok(self, *words: str, timeout: float = 60) -> Done:
        """Run one procd command that must succeed."""
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, f"procd {words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def start(self, *options: str) -> Service:
        self.ok("start", *options)
        return self

    def start_foreground(self, *options: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
        """Start in a session of its own; return when it serves."""
        self._address = None
        with (self.root / "foreground.out").open("wb") as out:
            self.foreground = subprocess.Popen(
                self.argv("start", "--foreground", *options),
                env=self.environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out if stderr is None else stderr,
                start_new_session=True,
            )
        self.wait_for(lambda: self.run("status", "--json").returncode == 0, 15)
        self.wait_for(lambda: self.status()["state"] == "running", 15)
        return self.foreground

    def reload(self, *options: str) -> Done:
        return self.ok("reload", *options)

    def stop(self, *options: str) -> Done:
        return self.ok("stop", *options)

    def status(self) -> Status:
        status: Status = json.loads(self.ok("status", "--json").stdout)
        return status

    def is_running(self) -> bool:
        return self.run("status").returncode == 0

    # -- processes -----------------------------------------------------------------------------

    def processes(self, role: str, state: str = "ready") -> list[Process]:
        return [p for p in self.status()["processes"] if p["role"] == role and p["state"] == state]

    def pids(self, role: str) -> list[int]:
        return [p["pid"] for p in self.processes(role)]

    @property
    def master(self) -> int:
        """As its pid file says, which costs no command; test_pidfiles.py holds that it is true."""
        path = self.run_dir / "master.pid"
        return int(path.read_text()) if path.exists() else self.status()["pid"]

    def seats(self) -> list[int]:
        """The worker pid file: pids of the ready workers, then task workers, by id."""
        try:
            return [int(line) for line in (self.run_dir / "worker.pid").read_text().split()]
        except FileNotFoundError:
            return []

    def alive(self) -> set[int]:
        """Every process of this service, the commands that a test started included."""
        return leftovers.marked(self.marker)

    def kill(self, pid: int, signum: int = signal.SIGKILL) -> None:
        """Signal one process of this service, and no other's."""
        if pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signum)

    def wait_for_end(self, pid: int, seconds: float) -> None:
        eventually(lambda: pid not in self.alive(), seconds, f"end of {pid}")

    def wait_for(self, predicate: Callable[[], T], seconds: float, what: str = "") -> T:
        return eventually(predicate, seconds, what)

    # -- clients -------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        if self._address is None:
            self._address = Client.address_of(self.status()["listeners"][0])
        return self._address

    @property
    def port(self) -> int:
        address = self.address
        assert not isinstance(address, str)
        return address[1]

    def connect(self, address: Address | None = None) -> Client:
        return Client(address or self.address)

    def ask(self, expression: str, seconds: float = 15) -> Any:
        """Let a worker evaluate *expression* (apps/repl.py); a new connection each."""
        with self.connect() as client:
            return client.ask(expression, seconds)

    def task(self, expression: str, seconds: float = 15) -> Any:
        """Let a task worker evaluate *expression*; the result as the awaiting worker got it."""
        return self.ask(f"await server.task({expression!r})", seconds)

    def occupy(self, count: int) -> Path:
        """Hold *count* task workers until the file returned is deleted."""
        held = self.root / "held"
        held.touch()
        self.ask(f"flood('hold(\"{held}\")', 0, {count}) and 0")
        self.wait_for(lambda: self.status()["tasks"]["running"] == count, 5)
        return held

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop what still runs, then prove that nothing is left."""
        try:
            if self.alive():
                self.run("stop", "--timeout", "1", "--discard", timeout=30)
            if self.foreground is not None:
                self.foreground.wait(10)
            leftovers.prove_nothing_left(self)
        finally:
            self.destroy()

    def destroy(self) -> None:
        """End by force whatever is left; for the end of a test that already failed."""
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.foreground is not None:
            self.foreground.wait(10)
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def serving(app: str = "repl.py", **config: Any) -> Iterator[Service]:
    """A started service for the bench; as the fixture `serve` for tests."""
    service = Service(app, **config)
    try:
        yield service.start()
    except BaseException:
        service.destroy()
        raise
    service.close()
