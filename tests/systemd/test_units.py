"""What systemd itself says of the shipped units, and what they and the config must agree on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from procd.service.unit import Machine, unit_text
from tests.pure.configs import loaded
from tests.systemd.units import SERVICE, SOCKET, UNITS, settings_of

REPOSITORY = Path(__file__).parents[2]
MAX_EXPOSURE = 2.0

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make users and owners")


def settings(unit: Path) -> dict[str, list[str]]:
    return settings_of(unit.read_text())


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Copies of the units for systemd-analyze, which wants ExecStart's program to exist."""
    for unit in (SERVICE, SOCKET):
        text = unit.read_text().replace("=/usr/bin/procd ", "=/bin/true ")
        (tmp_path / unit.name).write_text(text)
    return [str(tmp_path / SERVICE.name), str(tmp_path / SOCKET.name)]


@pytest.mark.systemd
@needs_analyze
def test_systemd_finds_nothing_to_say_of_the_units(units: list[str]) -> None:
    done = run("systemd-analyze", "verify", *units)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.systemd
@needs_analyze
def test_sandbox_is_tight(units: list[str]) -> None:
    done = run("systemd-analyze", "security", "--offline=yes", "--no-pager", units[0])
    overall = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)

    assert overall is not None, done.stdout + done.stderr
    assert float(overall[1]) < MAX_EXPOSURE


@pytest.mark.systemd
@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd is not installed")
@needs_root
def test_user_and_folders_come_out_as_the_unit_needs_them(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    root = f"--root={tmp_path}"

    users = run("systemd-sysusers", root, str(UNITS / "sysusers.d/procd.conf"))
    folders = run("systemd-tmpfiles", root, "--create", str(UNITS / "tmpfiles.d/procd.conf"))

    assert (users.returncode, folders.returncode) == (0, 0), users.stderr + folders.stderr
    name, _, uid, gid, *_, shell = (tmp_path / "etc/passwd").read_text().strip().split(":")
    assert (name, shell) == ("procd", "/usr/sbin/nologin")
    assert 0 < int(uid) < 1000, "RemoveIPC= applies to users that are not of the system"
    config, records = (tmp_path / "etc/procd").stat(), (tmp_path / "run/procd").stat()
    assert (config.st_uid, config.st_gid, config.st_mode & 0o7777) == (0, int(gid), 0o750)
    assert (records.st_uid, records.st_gid, records.st_mode & 0o7777) == (0, 0, 0o755)


@pytest.mark.systemd
@needs_analyze
@pytest.mark.parametrize("user", ["procd", None])
def test_systemd_finds_nothing_to_say_of_a_unit_that_procd_writes(
    tmp_path: Path, user: str | None
) -> None:
    path = tmp_path / "shop.service"
    machine = Machine(Path("/bin/true"), 252, user)
    path.write_text(unit_text("shop", loaded(tmp_path, "max_conn: 10"), machine))
    manager = ["--user"] if user is None else []

    done = run(
        "env", f"XDG_RUNTIME_DIR={tmp_path}", "systemd-analyze", "verify", *manager, str(path)
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_service_keeps_its_queue_and_its_kept_tasks() -> None:
    service = settings(SERVICE)

    assert service["RemoveIPC"] == ["no"]
    assert not service.keys() & {"DynamicUser", "PrivateIPC"}
    assert service["StateDirectory"] == ["procd/%i"]


def test_socket_outlives_the_service() -> None:
    socket = settings(SOCKET)

    assert not socket.keys() & {"PartOf", "BindsTo", "Requires"}
    assert not socket["ListenStream"][0].startswith("/run/procd/")


def test_reload_blocks_and_a_config_error_is_not_retried() -> None:
    service = settings(SERVICE)

    assert service["Type"] == ["notify"], "252 takes notify-reload for simple"
    assert service["ExecStart"] == ["/usr/bin/procd -c /etc/procd/%i.yaml start --foreground"]
    assert service["ExecReload"] == ["/usr/bin/procd -c /etc/procd/%i.yaml reload"]
    assert service["RestartPreventExitStatus"] == ["2"]


def test_time_limits_leave_room_for_those_of_the_config() -> None:
    service = settings(SERVICE)
    config = yaml.safe_load((REPOSITORY / "config/procd.yaml").read_text())

    assert int(service["TimeoutStopSec"][0]) >= config["max_wait_time"] + 10
    assert int(service["TimeoutStartSec"][0]) >= 2 * config["boot_timeout"] + 10
    assert int(service["LimitNOFILE"][0]) > config["max_conn"]
    assert int(settings(SOCKET)["Backlog"][0]) == config["backlog"]
