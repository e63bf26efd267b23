"""`procd check`: what a deploy asks before it reloads."""

from __future__ import annotations

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service


@pytest.fixture
def written(make: Serve) -> Service:
    return make(boot_timeout=1.5)


@pytest.mark.short
def test_clean_service_is_0_and_leaves_nothing(written: Service) -> None:
    assert written.run("check").returncode == 0
    assert not written.run_dir.exists()
    assert not written.alive()
    assert list(written.root.rglob("*.pyc")) == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def (:\n", "SyntaxError"),
        ("import no_such_module_here\n", "no_such_module_here"),
        ("raise ValueError('no database')\n", "no database"),
        ("import os; os._exit(0)\n", "exit"),
        ("import sys; sys.exit()\n", "exit"),
        ("import ctypes; ctypes.string_at(0)\n", "SIGSEGV"),
        ("while True: pass\n", "1.5 s"),
        ("x = 1\n", "server"),
        ("server = 7\n", "server"),
    ],
)
def test_broken_app_is_2_with_its_reason(written: Service, source: str, reason: str) -> None:
    written.app_path.write_text(source)
    done = written.run("check")
    assert done.returncode == 2
    assert reason in done.stdout + done.stderr, done.stdout + done.stderr
    assert not written.alive()


def test_fault_in_the_app_is_shown_with_its_line(written: Service) -> None:
    written.app_path.write_text("x = 1\ny = undefined_name\n")
    done = written.run("check")
    said = done.stdout + done.stderr
    assert "app.py" in said
    assert "undefined_name" in said
    assert "2" in said


def test_config_and_app_are_both_reported(written: Service) -> None:
    written.app_path.write_text("import no_such_module_here\n")
    written.config_path.write_text(written.config_path.read_text() + "worker_nun: 3\n")
    said = written.run("check")
    assert "worker_nun" in said.stdout + said.stderr


def test_check_beside_a_running_service_disturbs_nothing(serve: Serve) -> None:
    service = serve()
    before = service.seats()
    assert service.run("check").returncode == 0
    service.app_path.write_text("def (:\n")
    assert service.run("check").returncode == 2
    assert service.seats() == before
    assert service.ask("VERSION") == "1"


def test_import_of_the_app_in_a_check_sees_its_env(make: Serve) -> None:
    service = make(env={"COLOUR": "green"})
    service.edit("def spin() -> int:", "assert os.environ['COLOUR']\n\n\ndef spin() -> int:")
    assert service.run("check").returncode == 0
