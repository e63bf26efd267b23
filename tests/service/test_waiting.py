"""What takes longer than a second says so on a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service

SLOW = "time.sleep(1.3)\n"


def on_a_terminal(service: Service, *words: str) -> str:
    """Run a command; return what its terminal got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        service.argv(*words), env=service.environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:
        pass  # the last who had the terminal is gone
    os.close(ours)
    assert process.wait(30) == 0, said
    return said.decode()


@pytest.fixture(name="slow")
def a_slow_app(make: Serve) -> Service:
    service = make()
    service.app_path.write_text(service.app_path.read_text() + SLOW)
    return service


def test_a_slow_start_and_reload_say_what_is_waited_for(slow: Service) -> None:
    said = on_a_terminal(slow, "start")
    assert re.search(r"\rstarting: \d s\x1b\[K.*\r\x1b\[Kstarted pid \d+", said, re.DOTALL)
    said = on_a_terminal(slow, "reload")
    assert re.search(r"\rreloading: \d s\x1b\[K.*\r\x1b\[Kreloaded in", said, re.DOTALL)


def test_without_a_terminal_there_is_only_the_result(slow: Service) -> None:
    assert slow.ok("start").stderr == ""
