"""`start --foreground --single` on a terminal: breakpoint() works in all that is the app's."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service

APP = """
def stop_here(x: int) -> int:
    breakpoint()
    return x + 1


def spin() -> int:"""
PROMPT = "(Pdb) "
LONG_LOOK = "p __import__('time').sleep(2) or 'still ' + 'here'\n"


class Terminal:
    """A service in the foreground of a terminal of its own; what a person sees and types there."""

    def __init__(self, service: Service, *words: str) -> None:
        self.service = service
        self.fd, self.inner = os.openpty()
        self.seen = ""
        self._at = 0
        self.before = termios.tcgetattr(self.inner)
        service.foreground = subprocess.Popen(
            service.argv("start", "--foreground", "--single", *words),
            env=service.environment() | {"TERM": "dumb"},
            cwd="/",
            stdin=self.inner,
            stdout=self.inner,
            stderr=self.inner,
            start_new_session=True,
            # Ctrl-C comes from it.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads
        )

    def wait_for(self, text: str, seconds: float = 15) -> None:
        """Read on until *text* comes after what was waited for before."""
        deadline = time.monotonic() + seconds
        while (at := self.seen.find(text, self._at)) < 0:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {self.seen[self._at :]!r}"
            if select.select([self.fd], [], [], left)[0]:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
        self._at = at + len(text)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.inner)


@pytest.fixture
def single(make: Serve) -> Iterator[Terminal]:
    # What would end or replace a process at a prompt is set as low as it can be.
    service = make(
        worker_num=3, task_worker_num=3, hang_timeout=0.5, boot_timeout=5, watch_file=True
    )
    service.edit("\ndef spin() -> int:", APP)
    terminal = Terminal(service)
    terminal.wait_for("started")
    yield terminal
    if service.foreground is not None and service.foreground.poll() is None:
        service.foreground.terminate()
        service.foreground.wait(10)
    terminal.close()


def test_handler_stops_at_a_breakpoint_for_as_long_as_one_looks(single: Terminal) -> None:
    service = single.service
    with service.connect() as client:
        client.post("stop_here(41)")
        single.wait_for(PROMPT)
        single.type("p x * 1000\n")
        single.wait_for("41000")
        single.wait_for(PROMPT)
        single.type(LONG_LOOK)
        single.wait_for("still here")
        single.type("c\n")
        assert client.read_answer() == 42
    assert [p["restarts"] for p in service.processes("worker")] == [0]


def test_there_are_one_worker_and_one_task_worker_which_has_the_terminal_too(
    single: Terminal,
) -> None:
    service = single.service
    assert [len(service.pids(role)) for role in ("worker", "task")] == [1, 1]
    with service.connect() as client:
        client.post("await server.task('stop_here(1)')")
        single.wait_for(PROMPT)
        single.type("c\n")
        assert client.read_answer() == 2


def test_save_at_a_prompt_starts_no_second_worker_and_a_reload_takes_it(single: Terminal) -> None:
    service = single.service
    service.edit('VERSION = "1"', 'VERSION = "2"')
    with service.connect() as client:
        client.post("stop_here(1)")
        single.wait_for(PROMPT)
        assert service.status()["generation"] == 1
        single.type("c\n")
        assert client.read_answer() == 2
    service.reload()
    assert (service.ask("VERSION"), service.status()["generation"]) == ("2", 2)
    with service.connect() as client:
        client.post("stop_here(2)")
        single.wait_for(PROMPT)
        single.type("c\n")
        assert client.read_answer() == 3


def test_ctrl_c_at_a_prompt_ends_all_and_leaves_the_terminal_as_it_was(single: Terminal) -> None:
    service = single.service
    with service.connect() as client:
        client.post("stop_here(1)")
        single.wait_for(PROMPT)
        single.type("\x03")
        assert service.foreground is not None
        assert service.foreground.wait(10) == 0
    assert termios.tcgetattr(single.inner) == single.before


def test_import_can_be_looked_into(make: Serve) -> None:
    service = make(boot_timeout=1)
    service.edit('VERSION = "1"', 'breakpoint()\nVERSION = "1"')
    terminal = Terminal(service)
    terminal.wait_for(PROMPT)
    terminal.type(LONG_LOOK)
    terminal.wait_for("still here")
    terminal.type("c\n")
    terminal.wait_for("started")
    assert service.ask("VERSION") == "1"
    terminal.type("\x03")
    assert service.foreground is not None
    assert service.foreground.wait(10) == 0
    terminal.close()


def test_own_options_go_before_and_a_service_without_task_workers_stays_so(make: Serve) -> None:
    service = make(task_worker_num=0)
    terminal = Terminal(service, "-s", "hang_timeout=1")
    terminal.wait_for("started")
    assert service.pids("task") == []
    victim = service.ask("os.getpid()")
    with service.connect() as client:
        client.post("spin()")
        service.wait_for(lambda: victim not in service.seats(), 10)
    service.stop()
    terminal.close()


def test_it_is_for_the_foreground(make: Serve) -> None:
    done = make().run("start", "--single")
    assert (done.returncode, "--foreground" in done.stderr) == (2, True)
