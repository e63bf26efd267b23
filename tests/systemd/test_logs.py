"""The log as the journal has it: fields, whole tracebacks, and `procd logs`."""

from __future__ import annotations

import json
import signal

import pytest

from tests.systemd.conftest import Setup
from tests.systemd.machine import Machine

pytestmark = pytest.mark.systemd

APP = """
    from procd import Connection, Server

    server = Server()


    @server.on_receive
    async def receive(conn: Connection, data: bytes) -> None:
        print(data.decode(), end="")
        if data == b"raise\\n":
            raise ValueError("two\\nlines")
        if data == b"large\\n":
            print("x" * 60_000)
        conn.send(b"done\\n")
"""

Fields = dict[str, object]


def ask(machine: Machine, words: str) -> None:
    machine.run("python3", "/srv/ask.py", "9000", words + "\n")


def entries(machine: Machine, unit: str) -> list[Fields]:
    lines = machine.journal("-u", unit, "-o", "json", "--all").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def entry(machine: Machine, unit: str, words: str) -> Fields:
    """Return the first entry with these words, once it is there."""

    def found() -> list[Fields]:
        return [each for each in entries(machine, unit) if words in str(each["MESSAGE"])]

    return machine.wait_for(found, 10, words)[0]


def test_the_journal_has_fields_and_whole_tracebacks(machine: Machine, service: Setup) -> None:
    unit = service("web")
    machine.write("/srv/web/app.py", APP)
    machine.ok("systemctl", "start", unit)
    ask(machine, "hello")
    said = entry(machine, unit, "hello")
    assert (said["MESSAGE"], said["PRIORITY"], said["PROCD_ROLE"]) == ("hello", "6", "worker")
    assert said["PROCD_WORKER"] in ("0", "1")
    assert said["PROCD_GENERATION"] == "1"
    assert said["SYSLOG_IDENTIFIER"] == "web"
    assert said["_SYSTEMD_UNIT"] == unit

    ask(machine, "raise")
    said = entry(machine, unit, "ValueError: two")
    assert said["PRIORITY"] == "3"
    assert str(said["MESSAGE"]).endswith("ValueError: two\nlines")
    assert "Traceback (most recent call last):\n" in str(said["MESSAGE"])

    ask(machine, "large")
    assert entry(machine, unit, "x" * 1000)["MESSAGE"] == "x" * 60_000

    machine.ok("systemctl", "stop", unit)
    last = entry(machine, unit, "stopped tasks_kept=0")
    assert last["PROCD_ROLE"] == "master"
    assert "PROCD_WORKER" not in last


def test_procd_logs_is_journalctl_there(machine: Machine, service: Setup) -> None:
    unit = service("web")
    machine.write("/srv/web/app.py", APP)
    machine.ok("systemctl", "start", unit)
    ask(machine, "once more")
    number = str(entry(machine, unit, "once more")["PROCD_WORKER"])
    logs = ("procd", "-c", "/etc/procd/web.yaml", "logs")
    assert machine.ok(*logs, "--worker", number, "-n", "1").rstrip().endswith(": once more")
    assert "once more" not in machine.ok(*logs, "--worker", str(1 - int(number)))
    assert "once more" not in machine.ok(*logs, "--level", "warning")
    machine.ok("kill", f"-{int(signal.SIGTERM)}", str(machine.master(unit)))
    machine.wait_for(lambda: machine.state(unit) == "inactive", 10, "the end")
    done = machine.run(*logs)
    assert done.returncode == 3
    assert "journalctl -n 20 -t web" in done.stderr
