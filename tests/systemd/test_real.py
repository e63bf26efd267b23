"""procd under a real systemd, as a system user: the units do what they say."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.systemd.conftest import APP, Setup
from tests.systemd.machine import INSIDE, Machine

pytestmark = pytest.mark.systemd


def ask(machine: Machine, words: str = "x", port: int = 9000) -> str:
    return machine.ok("python3", "/srv/ask.py", str(port), words).strip()


def edit(machine: Machine, name: str, old: str, new: str) -> None:
    assert old in APP
    machine.write(f"/srv/{name}/app.py", APP.replace(old, new))


def test_a_release_a_bad_release_and_a_stop(machine: Machine, service: Setup) -> None:
    unit = service("web")
    machine.ok("systemctl", "start", unit)
    assert machine.show(unit, "StatusText") == "generation 1 serves"
    assert ask(machine) == "hello one"
    users = machine.ok("ps", "-o", "user=", "-p", str(machine.master(unit)))
    assert users.split() == ["procd"]
    assert len(machine.queues()) == 1

    edit(machine, "web", "hello one", "hello two")
    machine.ok("systemctl", "reload", unit)
    assert ask(machine) == "hello two"

    edit(machine, "web", "import asyncio", "import no_such_module")
    assert machine.run("systemctl", "reload", unit).returncode != 0
    assert machine.state(unit) == "active"
    status = machine.show(unit, "StatusText")
    assert status.startswith("generation 2 serves; reload refused: ")
    assert "no_such_module" in status
    assert "ModuleNotFoundError" in machine.journal("-u", unit)
    assert ask(machine) == "hello two"

    machine.ok("systemctl", "stop", unit)
    assert machine.show(unit, "Result") == "success"
    assert (machine.processes_of("procd"), machine.queues()) == ([], [])


def test_a_shell_is_sent_to_systemctl(machine: Machine, service: Setup) -> None:
    unit = service("web")
    machine.ok("systemctl", "start", unit)
    for verb in ("stop", "restart"):
        done = machine.run("procd", "-c", "/etc/procd/web.yaml", verb)
        assert (done.returncode, f"systemctl {verb} {unit}" in done.stderr) == (1, True)
    assert machine.state(unit) == "active"


def test_a_start_that_fails_fails_the_unit_and_says_why(machine: Machine, service: Setup) -> None:
    unit = service("web", listen="[tcp://127.0.0.1:9000, nonsense]")
    assert machine.run("systemctl", "start", unit).returncode != 0
    assert machine.show(unit, "NRestarts") == "0", "a config error is not tried again"
    assert "web.yaml:4:" in machine.journal("-u", unit)


def test_stop_is_given_the_configs_time_and_not_less(machine: Machine, service: Setup) -> None:
    unit = service("web", max_wait_time=12)
    machine.write(f"/run/systemd/system/{unit}.d/short.conf", "[Service]\nTimeoutStopSec=1\n")
    machine.ok("systemctl", "daemon-reload")
    machine.ok("systemctl", "start", unit)
    with subprocess.Popen(
        machine.argv("python3", "/srv/ask.py", "9000", "slow 3"), stdout=subprocess.PIPE, text=True
    ) as slow:
        assert slow.stdout is not None
        status = ("procd", "-c", "/etc/procd/web.yaml", "status", "--json")
        machine.wait_for(
            lambda: sum(
                p.get("connections", 0) for p in json.loads(machine.ok(*status))["processes"]
            ),
            10,
            "a connection",
        )
        machine.ok("systemctl", "stop", unit)
        assert slow.stdout.read() == "hello one\n"
    assert machine.show(unit, "Result") == "success"
    machine.ok("rm", "-r", f"/run/systemd/system/{unit}.d")
    machine.ok("systemctl", "daemon-reload")


def test_master_that_stands_still_is_ended_with_its_stack_and_started_again(
    machine: Machine, service: Setup
) -> None:
    unit = service("web")
    machine.write(f"/run/systemd/system/{unit}.d/quick.conf", "[Service]\nWatchdogSec=2\n")
    machine.ok("systemctl", "daemon-reload")
    machine.ok("systemctl", "start", unit)
    before = machine.master(unit)
    machine.ok("kill", "-STOP", str(before))
    machine.wait_for(
        lambda: machine.master(unit) not in (0, before) and machine.state(unit) == "active",
        20,
        "a new master",
    )
    assert ask(machine) == "hello one"
    assert "Fatal Python error: Aborted" in machine.journal("-u", unit)
    assert "procd/master/master.py" in machine.journal("-u", unit)
    machine.ok("rm", "-r", f"/run/systemd/system/{unit}.d")
    machine.ok("systemctl", "daemon-reload")


class Load:
    """Two clients that connect again and again; end() tells what befell them."""

    def __init__(self, machine: Machine, where: str) -> None:
        self.machine = machine
        argv = machine.argv("python3", "/srv/load.py", where)
        self.clients = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for client in self.clients:
            assert client.stdout is not None
            assert client.stdout.readline() == "under way\n"

    def end(self) -> dict[str, int]:
        self.machine.ok("pkill", "-TERM", "-f", "/srv/load.py")
        seen: dict[str, int] = {}
        for client in self.clients:
            said, _ = client.communicate(timeout=30)
            for what, count in json.loads(said.splitlines()[-1]).items():
                seen[what] = seen.get(what, 0) + count
        return seen

    def close(self) -> None:
        for client in self.clients:
            client.kill()
            client.communicate()


@pytest.fixture(params=["socket unit", "own, kept in the store", "own Unix socket, kept"])
def load(machine: Machine, service: Setup, request: pytest.FixtureRequest) -> Iterator[Load]:
    """procd@sock under load, with each kind of listener that outlives a killed master."""
    listen, where = {
        "socket unit": ("systemd://main", "/run/procd-sock.sock"),
        "own, kept in the store": ("tcp://127.0.0.1:9100", "9100"),
        "own Unix socket, kept": ("unix:///run/procd/sock/app.sock", "/run/procd/sock/app.sock"),
    }[request.param]
    service("sock", listen=f"[{listen}]")
    if request.param == "socket unit":
        machine.ok("systemctl", "start", "procd@sock.socket")
    else:
        machine.ok("systemctl", "start", "procd@sock.service")
    load = Load(machine, where)
    yield load
    load.close()
    machine.ok("systemctl", "stop", "procd@sock.socket", "procd@sock.service")


@pytest.mark.parametrize("load", ["socket unit", "own, kept in the store"], indirect=True)
def test_restarts_refuse_nobody(machine: Machine, load: Load) -> None:
    for _ in range(3):
        machine.ok("systemctl", "restart", "procd@sock.service")
    seen = load.end()
    assert seen["answered"] > 50
    assert "refused" not in seen
    # A stop closes at once who is connected and has said nothing yet.
    assert seen.get("cut", 0) <= 2 * 3


def test_kill_of_the_master_refuses_nobody(machine: Machine, load: Load) -> None:
    unit = "procd@sock.service"
    for _ in range(2):
        before = machine.master(unit)
        machine.ok("kill", "-KILL", str(before))
        machine.wait_for(
            lambda before=before: (  # type: ignore[misc]
                machine.master(unit) not in (0, before) and machine.state(unit) == "active"
            ),
            20,
            "the next master",
        )
    seen = load.end()
    assert seen["answered"] > 50
    # Who was being served is cut, by the kill and not by procd, and so is who came to a worker in
    # the moment before it followed its master.
    assert "refused" not in seen
    assert seen.get("cut", 0) <= 20
    assert "kept listener not used" not in machine.journal("-u", unit)


def test_listener_that_left_the_config_is_not_kept(machine: Machine, service: Setup) -> None:
    unit = service("web", listen="[tcp://127.0.0.1:9000, tcp://127.0.0.1:9001]")
    machine.ok("systemctl", "start", unit)
    assert machine.show(unit, "NFileDescriptorStore") == "2"
    service("web")
    machine.ok("systemctl", "reload", unit)
    assert machine.show(unit, "NFileDescriptorStore") == "1"
    machine.ok("systemctl", "restart", unit)
    assert ask(machine) == "hello one"
    assert machine.show(unit, "NFileDescriptorStore") == "1"
    machine.ok("systemctl", "stop", unit)
    assert machine.show(unit, "NFileDescriptorStore") == "0"
    assert machine.run("python3", "/srv/ask.py", "9000", "x").returncode != 0


def test_unit_of_a_new_project_is_installed_and_runs(machine: Machine) -> None:
    machine.ok("procd", "init", "/srv/shop")
    config = "/srv/shop/config/procd.yaml"
    said = machine.ok("procd", "-c", config, "systemd", "install")
    assert "systemctl enable --now shop" in said
    drop_in = f"[Service]\nEnvironment=PYTHONPATH={INSIDE}\n"
    machine.write("/etc/systemd/system/shop.service.d/test.conf", drop_in)
    machine.ok("systemctl", "daemon-reload")
    machine.ok("systemctl", "enable", "--now", "shop")
    assert ask(machine) == "hello world client"
    assert machine.run("procd", "-c", config, "doctor").returncode == 0
    machine.ok("sed", "-i", "s/hello world/hello again/", "/srv/shop/app.py")
    machine.ok("systemctl", "reload", "shop")
    assert ask(machine) == "hello again client"
    machine.ok("systemctl", "disable", "--now", "shop")
    assert machine.ok("ls", "-A", "/srv/shop/run", "/srv/shop/state").split() == [
        *("/srv/shop/run:", "procd", "/srv/shop/state:", "ids")
    ]
