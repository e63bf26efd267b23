"""A throw-away machine with a real systemd, in which procd runs as its units say.

It is this machine's own root under an overlay, with namespaces of its own (with-systemd.sh). The
repository lies at /srv/procd there, and /usr/bin/procd runs it with this test's Python.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.service.daemon import REPOSITORY, pause

SCRIPT = Path(__file__).parent / "with-systemd.sh"
CANNOT = 77
INSIDE = "/srv/procd"  # the repository
VENV = "/srv/venv"
PYTHON = sys.executable
if sys.prefix.startswith("/tmp/"):
    PYTHON = PYTHON.replace(sys.prefix, VENV)
PROGRAM = f'#!/bin/sh\nPYTHONPATH={INSIDE} exec {PYTHON} -m procd "$@"\n'
# A virtual environment may stand on a Python in somebody's home, which the units hide.
DROP_IN = f"[Service]\nProtectHome=read-only\nEnvironment=PYTHONPATH={INSIDE}\n"

INSTALL = (  # as the README has it
    "install -Dm644 systemd/procd@.service systemd/procd@.socket -t /etc/systemd/system",
    "install -Dm644 systemd/sysusers.d/procd.conf -t /etc/sysusers.d && systemd-sysusers",
    "install -Dm644 systemd/tmpfiles.d/procd.conf -t /etc/tmpfiles.d && systemd-tmpfiles --create",
)

Done = subprocess.CompletedProcess[str]
T = TypeVar("T")


class CannotBoot(Exception):
    """The kernel, or who we are, does not allow it."""


class Machine:
    """Booted when made; every wait has a deadline."""

    def __init__(self) -> None:
        binds = ["-b", f"{REPOSITORY}:{INSIDE}"]
        if sys.prefix.startswith("/tmp/"):  # the units have another one
            binds += ["-b", f"{sys.prefix}:{VENV}"]
        self._process = subprocess.Popen(
            [SCRIPT, "boot", *binds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate(timeout=30)
            if self._process.returncode == CANNOT:
                raise CannotBoot(said.strip())
            raise AssertionError(f"systemd did not boot: {said}")
        self._init = line.split()[1]
        try:
            self._install()
        except BaseException:
            self.close()
            raise

    def _install(self) -> None:
        """Put everything where the README says, and this test's Python within reach."""
        home = Path(sys.base_prefix).parts[:2]
        self.ok("chmod", "a+x", str(Path(*home)))
        self.write("/usr/bin/procd", PROGRAM, mode="755")
        readme = (REPOSITORY / "README.md").read_text()
        for line in INSTALL:
            assert line in readme
            self.ok("bash", "-c", f"cd {INSIDE} && {line}")
        self.write("/etc/systemd/system/procd@.service.d/test.conf", DROP_IN)
        self.ok("systemctl", "daemon-reload")

    def close(self) -> None:
        """Shut it down; AssertionError if that leaves anything."""
        _, said = self._process.communicate(timeout=30)
        assert (self._process.returncode, said) == (0, "")

    # -- commands ------------------------------------------------------------------------------

    def argv(self, *words: str) -> list[str]:
        return [str(SCRIPT), "in", self._init, *words]

    def run(self, *words: str, stdin: str = "", timeout: float = 60) -> Done:
        return subprocess.run(
            self.argv(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ok(self, *words: str, stdin: str = "") -> str:
        """Run a command that must succeed; return what it printed."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.journal()}"
        return done.stdout

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file whole or not at all, so that nobody reads half of it."""
        script = (
            'mkdir -p "$(dirname "$1")" && cat >"$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1"'
        )
        self.ok("sh", "-c", script, "sh", path, mode, stdin=textwrap.dedent(text))

    def wait_for(self, predicate: Callable[[], T], seconds: float, what: str) -> T:
        deadline = time.monotonic() + seconds
        while not (value := predicate()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}{self.journal()}"
            pause(0.05)
        return value

    # -- what there is -------------------------------------------------------------------------

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.ok("systemctl", "show", unit, f"--property={name}", "--value").strip()

    def state(self, unit: str) -> str:
        return self.show(unit, "ActiveState")

    def master(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def processes_of(self, user: str) -> list[str]:
        return self.run("ps", "-u", user, "-o", "pid,args", "--no-headers").stdout.splitlines()

    def queues(self) -> list[str]:
        return self.ok("cat", "/proc/sysvipc/msg").splitlines()[1:]

    def journal(self, *words: str) -> str:
        return self.run("journalctl", "-b", "--no-pager", "-n", "400", *words).stdout
