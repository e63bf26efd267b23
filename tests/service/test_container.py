"""As PID 1 of a container: strangers are reaped, the namespace ends with the service."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.service import leftovers
from tests.service.client import Client
from tests.service.conftest import Serve

STRANGER = """
import os


def orphan() -> None:
    # A grandchild whose parent is gone: whoever is PID 1 inherits it.
    if (pid := os.fork()) == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)


"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_process_1_reaps_strangers_and_ends_on_term(make: Serve) -> None:
    service = make()
    path = service.root / "app.sock"
    service.configure(listen=[f"unix://{path}"])
    service.edit("def spin() -> int:", STRANGER + "def spin() -> int:")
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with (service.root / "foreground.out").open("wb") as out:
        service.foreground = subprocess.Popen(
            [*unshare, *service.argv("start", "--foreground")],
            env=service.environment(),
            stdout=out,
            stderr=out,
        )
    service.wait_for(path.exists, 10)
    (master,) = leftovers.children(service.foreground.pid)
    with service.connect(str(path)) as client:
        assert client.ask("os.getppid()", 10) == 1
        for _ in range(10):
            client.ask("orphan()")
        service.wait_for(lambda: not leftovers.zombies(master), 5)
    service.kill(master, 15)
    assert service.foreground.wait(8) == 0
    assert Client.address_of(f"unix://{path}") == str(path)
