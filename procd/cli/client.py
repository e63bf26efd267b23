"""How a command finds its service and talks to it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from procd.errors import ConfigError, NotRunning, ProcdError
from procd.linux import process
from procd.master import pidfile
from procd.service import record

if TYPE_CHECKING:
    from procd.config.schema import Config

Json = dict[str, object]


class NoAnswer(ProcdError):
    """The master lives but its control socket does not answer."""


class Service:
    """A running service, by the path of its config."""

    def __init__(self, config_path: Path) -> None:
        """Raises NotRunning."""
        self.config_path = config_path
        found = record.read(config_path)
        if found is not None and found.alive:
            self.pid, self.run_dir = found.pid, found.run_dir
            return
        config = _config_of(config_path)
        pid = None
        if config is not None:
            self.run_dir = config.run_dir
            pid = self._peer() or _locked(config.master_pid_file)
        if pid is None:
            raise NotRunning(f"no procd runs for {config_path}")
        self.pid = pid

    @property
    def control_path(self) -> Path:
        return self.run_dir / "control.sock"

    def _peer(self) -> int | None:
        """Return who listens on the control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(str(self.control_path))
            except OSError:
                return None
            found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int.from_bytes(found[:4], "little")

    def ask(self, request: Json, seconds: float | None = None) -> Json:
        """Send one request and return the answer.

        Raises NoAnswer when the socket is gone or the master went first, TimeoutError.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(seconds)
            try:
                sock.connect(str(self.control_path))
                sock.sendall(json.dumps(request).encode() + b"\n")
                with sock.makefile("rb") as answers:
                    line = answers.readline()
            except TimeoutError:
                raise
            except PermissionError:
                raise ProcdError(
                    f"{self.control_path} serves root and the user of pid {self.pid} only"
                ) from None
            except OSError as error:
                raise NoAnswer(f"{self.control_path}: {error.strerror}") from None
        if not line:
            raise NoAnswer(f"pid {self.pid} has closed {self.control_path} without an answer")
        answer: Json = json.loads(line)
        return answer

    def max_wait_time(self) -> float:
        """Return how long the service may take to stop, as far as can be known."""
        config = _config_of(self.config_path)
        return 30.0 if config is None else config.max_wait_time

    def signal(self, signum: signal.Signals) -> None:
        """Signal the master; raises NotRunning, ProcdError."""
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            raise NotRunning(f"no procd runs for {self.config_path}") from None
        except PermissionError:
            raise ProcdError(f"pid {self.pid} is another user's: become that user") from None

    def wait_gone(self, seconds: float | None) -> bool:
        """Wait until the master is gone; False if it still lives after *seconds*."""
        start = process.start_time(self.pid)
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if process.start_time(self.pid) != start:
                return True
            return bool(select.select([pidfd], [], [], seconds)[0])
        finally:
            os.close(pidfd)

    def unit(self) -> str | None:
        """Return the systemd unit whose main process the master is."""
        with suppress(OSError):
            cgroup = Path(f"/proc/{self.pid}/cgroup").read_text(encoding="utf-8")
            name = cgroup.strip().rpartition("/")[2]
            environ = Path(f"/proc/{self.pid}/environ").read_bytes().split(b"\0")
            started_by_systemd = any(line.startswith(b"INVOCATION_ID=") for line in environ)
            parent = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[1]
            if name.endswith(".service") and started_by_systemd and parent == "1":
                return name
        return None

    def is_of_a_user(self) -> bool:
        """Tell whether it is a unit of a user's own systemd."""
        with suppress(OSError):
            return "/user@" in Path(f"/proc/{self.pid}/cgroup").read_text(encoding="utf-8")
        return False


def _config_of(path: Path) -> Config | None:
    # Whoever runs has a record: few commands come here.
    from procd.config.load import load

    try:
        return load(path)
    except ConfigError:
        return None


def _locked(path: Path | None) -> int | None:
    if path is None:
        return None
    with suppress(OSError, ProcdError):
        return pidfile.running_pid(path)
    return None
