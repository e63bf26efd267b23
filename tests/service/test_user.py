"""Started as root with `user`: all but the master is that user and nothing more, and works."""

from __future__ import annotations

import grp
import os
import pwd
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.queues import free_key
from tests.service.conftest import Serve
from tests.service.daemon import Service

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change users")
pytestmark = needs_root
NOBODY = pwd.getpwnam("nobody")
OTHER = next(group for group in grp.getgrall() if group.gr_gid not in (0, NOBODY.pw_gid))
CAPABILITIES = ("CapPrm", "CapEff", "CapAmb")


def as_user(make: Serve, **config: Any) -> Service:
    """A service of nobody's, whose app notes into a file in a folder of nobody's."""
    service = make(**{"user": "nobody"} | config)
    service.root.chmod(0o755)
    own = service.root / "own"
    own.mkdir()
    os.chown(own, NOBODY.pw_uid, NOBODY.pw_gid)
    service.ledger_path = own / "ledger"
    return service


def rights(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("group", [None, OTHER.gr_name])
def test_every_process_but_the_master_has_its_ids_and_nothing_else(
    make: Serve, group: str | None
) -> None:
    service = as_user(make, group=group, message_queue_key=free_key()).start()
    assert service.ok("task", "send", "app.add", "1", "2", "--wait").stdout  # starts a gate
    service.wait_for(lambda: service.pids("spare"), 10)
    gid = NOBODY.pw_gid if group is None else OTHER.gr_gid
    seen = service.status()["processes"]
    assert {p["role"] for p in seen} >= {
        *("worker", "task", "base", "template", "spare", "ingress", "gate")
    }
    for process in seen:
        found = rights(process["pid"])
        assert found["Uid"] == [str(NOBODY.pw_uid)] * 4, process
        assert found["Gid"] == [str(gid)] * 4, process
        assert found["Groups"] == sorted(map(str, os.getgrouplist("nobody", gid))), process
        assert {name: int(found[name][0], 16) for name in CAPABILITIES} == dict.fromkeys(
            CAPABILITIES, 0
        ), process
    assert rights(service.master)["Uid"][0] == "0"
    assert "workers run as root" not in service.log()


def test_user_without_an_account_is_fine(make: Serve) -> None:
    service = as_user(make, user="54321", group="54322").start()
    assert service.ask("[os.getuid(), os.getgid(), os.getgroups()]") == [54321, 54322, [54322]]
    assert service.task("6 * 7") == 42


def test_reload_respawn_and_recycling_go_on_working(make: Serve) -> None:
    service = as_user(make, task_max_request=3, hang_timeout=1).start()
    service.edit('VERSION = "1"', 'VERSION = "2"')
    service.reload()
    assert service.ask("VERSION") == "2"
    for victim in service.seats():
        service.kill(victim)
    service.wait_for(lambda: len(service.seats()) == 4, 10)
    service.ask("flood('ran({})', 0, 20)")
    service.wait_for(lambda: len(service.runs()) == 20, 10)
    with service.connect() as client:
        victim = client.ask("os.getpid()")
        client.post("spin()")
        service.wait_for(lambda: victim not in service.seats(), 10)
    service.wait_for(lambda: len(service.seats()) == 4, 10)
    assert {rights(pid)["Uid"][0] for pid in service.seats()} == {str(NOBODY.pw_uid)}
    for role in ("template", "base"):
        service.kill(service.pids(role)[0])
    service.wait_for(lambda: service.pids("base") and service.pids("template"), 10)
    service.reload()
    assert service.ask("VERSION") == "2"


def test_tasks_messages_log_and_commands_are_usable(make: Serve) -> None:
    service = as_user(make).start()
    assert service.ask("len(await server.task(\"'y' * 300_000\"))") == 300_000  # by the spool
    service.ask("[server.send_message('hi', n) for n in range(4)] and 0")
    service.wait_for(lambda: len(service.ledger("message")) == 4, 5)
    assert "master" in service.ok("stacks").stdout
    log = service.run_dir / "procd.log"
    log.rename(log.with_suffix(".old"))
    service.kill(service.master, signal.SIGWINCH)
    service.wait_for(lambda: "log reopened" in service.log(), 5)
    with service.connect() as client:
        client.post("raise something for the new log")
        assert client.is_closed(5)
    service.wait_for(lambda: "something for the new log" in service.log(), 5)


def test_tasks_outlive_a_killed_master(make: Serve) -> None:
    service = as_user(make, task_worker_num=0).start()
    service.ask("flood('ran({})', 0, 50)")
    service.kill(service.master)
    service.wait_for(lambda: not service.alive(), 5)
    service.configure(task_worker_num=2)
    service.start()
    service.wait_for(lambda: len(service.runs()) == 50, 10)


def test_unix_socket_is_the_users_with_the_mode_of_the_config(make: Serve) -> None:
    service = as_user(make, group=OTHER.gr_name)
    service.configure(listen=[f"unix://{service.root}/app.sock?mode=0660"])
    service.start()
    found = (service.root / "app.sock").stat()
    assert (found.st_uid, found.st_gid) == (NOBODY.pw_uid, OTHER.gr_gid)
    assert found.st_mode & 0o777 == 0o660
    assert service.ask("VERSION") == "1"
    listen = [f"unix://{service.root}/app.sock?mode=0600", f"unix://{service.root}/new.sock"]
    service.configure(listen=listen)
    service.reload()
    assert (service.root / "app.sock").stat().st_mode & 0o777 == 0o600
    assert (service.root / "new.sock").stat().st_gid == OTHER.gr_gid


@pytest.mark.parametrize("user", [None, "root", "0"])
def test_root_is_warned_of_once(make: Serve, user: str | None) -> None:
    service = make(user=user).start()
    service.reload()
    service.wait_for(lambda: service.log().count("workers run as root") == 1, 5)
    assert service.run("check").stderr.count("run as root") == 1
    assert service.run("doctor").stdout.count("as root: a fault") == 1
