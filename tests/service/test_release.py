"""Releases behind a symlink, as a deploy makes them: `procd reload` serves what it leads to now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service

# The first is in the unit that `procd init` writes.
UNIT = {"PROCD_WATCH_FILE": "false", "PROCD_LISTEN": "[tcp://127.0.0.1:0]"}


@pytest.fixture
def deployed(make: Serve) -> Iterator[Service]:
    """Two releases of what `procd init` writes, and `current`, the link to the first of them."""
    service = make()
    service.extra_environment |= UNIT
    for name in ("one", "two"):
        folder = service.root / name
        service.ok("init", str(folder))
        app = folder / "app.py"
        app.write_text(app.read_text().replace("hello world client", f"release {name}"))
    point_to(service, "one")
    service.config_path = service.root / "current/config/procd.yaml"
    yield service
    if service.alive():
        service.run("stop", "--discard")


def point_to(service: Service, name: str) -> None:
    """Switch as a deploy does: another link in the place of the old one, at once."""
    link = service.root / "next"
    link.symlink_to(name)
    link.rename(service.root / "current")


def answer(service: Service) -> str:
    with service.connect() as client:
        client.send(b"x")
        return client.read_line().decode()


def test_reload_serves_the_release_that_the_link_names(deployed: Service) -> None:
    config = deployed.root / "two/config/procd.yaml"
    deployed.start()
    assert answer(deployed) == "release one"
    point_to(deployed, "two")
    assert "generation 2" in deployed.reload().stdout
    assert answer(deployed) == "release two"
    assert deployed.ok("task", "send", "app.count_words", "one two", "--wait").stdout == "2\n"
    config.write_text(config.read_text() + "\nmax_conn: 77\n")
    assert "max_conn 10000 -> 77" in deployed.reload().stdout
    point_to(deployed, "one")
    assert deployed.reload().returncode == 0
    assert answer(deployed) == "release one"
    assert Path(deployed.status()["config"]["path"]) == deployed.config_path
    deployed.stop()
