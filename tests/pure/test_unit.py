"""The unit that `procd systemd` writes: for one config, and as hard as the one in systemd/."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from procd.config.schema import Config
from procd.service.unit import Machine, name_of, unit_text
from tests.pure.configs import loaded
from tests.systemd.units import SERVICE, settings_of

DEBIAN = Machine(Path("/opt/procd/bin/python"), 252, "procd")
# What follows the config, and what the generated unit says in another way.
OWN = {
    *("ExecStart", "ExecReload", "User", "Group", "Environment", "SyslogIdentifier"),
    *("RuntimeDirectory", "StateDirectory", "LogsDirectory", "LogsDirectoryMode"),
    *("Description", "AssertFileNotEmpty", "ReadWritePaths", "ExecStartPre"),
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A config as the head of procd@.service wants it."""
    config = loaded(tmp_path, "run_dir: /run/procd/shop\nstate_dir: /var/lib/procd/shop")
    return dataclasses.replace(
        config,
        path=Path("/etc/procd/shop.yaml"),
        chdir=Path("/srv/shop/current"),
        worker_pid_file=None,
    )


def unit(config: Config, machine: Machine = DEBIAN) -> dict[str, list[str]]:
    return settings_of(unit_text("shop", config, machine))


def test_it_is_as_hard_as_the_shipped_unit(config: Config) -> None:
    written, shipped = unit(config), settings_of(SERVICE.read_text())
    differing = {
        name: (written.get(name), shipped.get(name))
        for name in (written.keys() | shipped.keys()) - OWN
        if written.get(name) != shipped.get(name)
    }
    # A package in /usr is no home; Python here is this test's own.
    assert differing.keys() <= {"ProtectHome", "PrivateTmp"}, differing


def test_it_names_this_config_and_this_python(config: Config) -> None:
    said = unit(config)
    command = "/opt/procd/bin/python -m procd -c /etc/procd/shop.yaml"
    assert said["ExecStart"] == [f"{command} start --foreground"]
    assert said["ExecReload"] == [f"{command} reload"]
    assert said["RuntimeDirectory"] == ["procd/shop"]
    assert "PROCD_WATCH_FILE=false" in " ".join(said["Environment"])


def test_time_limits_follow_the_config(config: Config) -> None:
    said = unit(dataclasses.replace(config, max_wait_time=300, boot_timeout=100, max_conn=10**6))
    assert (said["TimeoutStopSec"], said["TimeoutStartSec"]) == (["315"], ["230"])
    assert int(said["LimitNOFILE"][0]) > 10**6


def test_folders_elsewhere_are_made_and_may_be_written(config: Config) -> None:
    said = unit(dataclasses.replace(config, run_dir=Path("/srv/shop/run")))
    assert said["ExecStartPre"] == ["+/usr/bin/install -d -m 0711 -o procd /srv/shop/run"]
    assert "-/srv/shop/run" in said["ReadWritePaths"][0].split()


def test_home_is_seen_only_where_the_service_lives_in_one(config: Config) -> None:
    python = dataclasses.replace(DEBIAN, python=Path("/home/alice/.venv/bin/python"))
    assert unit(config, python)["ProtectHome"] == ["read-only"]
    assert unit(dataclasses.replace(config, chdir=Path("/tmp/x")))["PrivateTmp"] == ["no"]


def test_low_port_takes_one_capability(tmp_path: Path) -> None:
    low = loaded(tmp_path, "listen: [tcp://0.0.0.0:80]")
    assert unit(low)["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]


def test_older_systemd_is_spared_what_it_does_not_know(config: Config) -> None:
    old = unit(config, dataclasses.replace(DEBIAN, systemd=241))
    assert not {"ProtectProc", "OOMPolicy", "ProtectClock"} & old.keys()
    assert {"ProtectSystem", "RemoveIPC", "Type"} <= old.keys()


def test_users_own_unit_asks_for_nothing_that_only_root_may(config: Config) -> None:
    said = unit(config, dataclasses.replace(DEBIAN, user=None))
    assert not {"User", "ProtectSystem", "CapabilityBoundingSet", "ExecStartPre"} & said.keys()
    assert said["WantedBy"] == ["default.target"]
    assert not any("XDG_RUNTIME_DIR" in value for value in said["Environment"])


def test_names_with_blanks_and_percents_come_back_as_they_are(config: Config) -> None:
    said = unit(dataclasses.replace(config, path=Path("/etc/my app/100%$x.yaml")))
    assert '"/etc/my app/100%%$$x.yaml"' in said["ExecStart"][0]


@pytest.mark.parametrize(
    ("path", "chdir", "name"),
    [
        ("/etc/procd/shop.yaml", "/srv/x", "shop"),
        ("/srv/shop/config/procd.yaml", "/srv/shop/config/..", "shop"),
        ("/srv/shop/current/procd.yaml", "/srv/shop/current", "shop"),
        ("/srv/my shop/procd.yaml", "/srv/my shop", "my-shop"),
    ],
)
def test_service_is_called_as_its_file_or_folder(
    config: Config, path: str, chdir: str, name: str
) -> None:
    assert name_of(dataclasses.replace(config, path=Path(path), chdir=Path(chdir))) == name
