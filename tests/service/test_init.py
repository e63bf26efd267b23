"""`procd init` as a new user tries it: an empty folder, a start, an edit, a stop."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service

WRITTEN = [".gitignore", "app.py", "config/procd.yaml"]


@pytest.fixture
def home(make: Serve) -> Iterator[Service]:
    """A service whose files procd init is to write; it is found by the working directory."""
    service = make()
    for path in (service.app_path, service.config_path):
        path.unlink()
    service.config_path = service.root / "config/procd.yaml"
    yield service
    if service.alive():
        service.run("stop", "--discard")


def here(service: Service, *words: str, status: int = 0) -> str:
    """Run procd in the folder, without -c."""
    argv = service.argv()[:3]
    done = subprocess.run(
        [*argv, *words],
        env=service.environment(),
        cwd=service.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def hello(service: Service) -> list[str]:
    with service.connect() as client:
        client.send(b"how are you")
        return [client.read_line().decode() for _ in range(2)]


@pytest.mark.short
def test_new_service_starts_answers_reloads_and_stops(home: Service) -> None:
    home.extra_environment["PROCD_LISTEN"] = "[tcp://127.0.0.1:0]"  # others test here, too
    said = here(home, "init")
    assert files(home.root) == [*WRITTEN, f"systemd/{home.root.name}.service"]
    assert "procd start" in said
    assert "good" in here(home, "check")
    here(home, "doctor")
    here(home, "start")
    assert hello(home) == ["hello world client", "a task worker counted 3 words"]
    home.edit("hello world client", "hello again")
    home.wait_for(lambda: hello(home)[0] == "hello again", 10, "the new answer")
    assert "stopped" in here(home, "stop")


def test_nothing_is_overwritten_and_nothing_half_written(home: Service) -> None:
    (home.root / ".gitignore").write_text("mine\n")
    (home.root / "systemd").mkdir()
    said = here(home, "init", status=1)
    assert ".gitignore, systemd already: nothing was written" in said
    assert files(home.root) == [".gitignore"]
    assert (home.root / ".gitignore").read_text() == "mine\n"


def test_what_was_written_goes_again_where_the_rest_cannot_be(home: Service) -> None:
    deep = "x" * 100  # a socket below it would have too long a path
    said = here(home, "init", deep, status=2)
    assert "run_dir" in said
    assert files(home.root) == []
    assert not (home.root / deep).exists()


def test_folder_is_made_and_gives_the_unit_its_name(home: Service) -> None:
    said = here(home, "init", "shop/")
    shop = home.root / "shop"
    assert files(shop) == [*WRITTEN, "systemd/shop.service"]
    assert f"cd {shop}" in said
    unit = (shop / "systemd/shop.service").read_text()
    assert "PROCD_WATCH_FILE=false" in unit
    assert f"-c {shop}/config/procd.yaml start --foreground" in unit


def test_command_that_it_prints_gets_an_answer_on_a_port_that_was_free(home: Service) -> None:
    ports = []
    for name in ("one", "two"):
        said = here(home, "init", name)
        ports.append(said.partition("127.0.0.1/")[2][:4])
        here(home, "-c", f"{name}/config/procd.yaml", "start")
        line = next(line for line in said.splitlines() if "/dev/tcp/" in line)
        done = subprocess.run(
            ["bash", "-c", line.partition("#")[0]], capture_output=True, text=True, check=False
        )
        assert "hello world client" in done.stdout
    assert ports[0] != ports[1]
    for name in ("one", "two"):
        here(home, "-c", f"{name}/config/procd.yaml", "stop")
        assert os.listdir(home.root / name / "run") == ["procd.log"]
