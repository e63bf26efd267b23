"""`procd systemd print` and `install`: what is written where, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service


@pytest.fixture
def shop(make: Serve) -> Service:
    service = make()
    service.extra_environment["XDG_CONFIG_HOME"] = str(service.root / "home")
    return service


def unit_of(service: Service) -> Path:
    return service.root / "home/systemd/user/shop.service"


def test_unit_is_installed_once_and_the_next_commands_are_told(shop: Service) -> None:
    said = shop.ok("systemd", "install", "--user", "shop").stdout
    assert f"{unit_of(shop)} written" in said
    assert "systemctl --user enable --now shop" in said
    assert unit_of(shop).read_text() == shop.ok("systemd", "print", "--user", "shop").stdout
    assert unit_of(shop).stat().st_mode & 0o777 == 0o644
    assert "the same" in shop.ok("systemd", "install", "--user", "shop.service").stdout
    assert [path.name for path in unit_of(shop).parent.iterdir()] == ["shop.service"]


def test_unit_that_differs_is_replaced_by_force_only(shop: Service) -> None:
    unit_of(shop).parent.mkdir(parents=True)
    unit_of(shop).write_text("[Service]\nmine=yes\n")
    done = shop.run("systemd", "install", "--user", "shop")
    assert (done.returncode, "--force" in done.stderr) == (1, True)
    assert "mine" in unit_of(shop).read_text()
    shop.ok("systemd", "install", "--user", "--force", "shop")
    assert "mine" not in unit_of(shop).read_text()


def test_shells_own_settings_do_not_get_into_the_unit(shop: Service) -> None:
    shop.extra_environment["PROCD_MAX_WAIT_TIME"] = "700"
    assert "TimeoutStopSec=20\n" in shop.ok("systemd", "print").stdout


@pytest.mark.parametrize("name", ["a/b", "", "x y", "../../etc"])
def test_name_that_is_none_is_refused(shop: Service, name: str) -> None:
    assert shop.run("systemd", "print", name).returncode == 2


def test_config_that_is_broken_has_no_unit(shop: Service) -> None:
    shop.config_path.write_text("worker_nun: 3\n")
    done = shop.run("systemd", "print")
    assert (done.returncode, "worker_nun" in done.stderr) == (2, True)
