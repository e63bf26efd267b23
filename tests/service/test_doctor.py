"""`procd doctor` on this machine: before a start, beside a running service, after a kill."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change users")
NOBODY = 65534


def diagnosis(service: Service, *words: str) -> tuple[int, list[dict[str, str]]]:
    """The exit status and what was found."""
    done = service.run("doctor", "--json", *words)
    found: list[dict[str, str]] = json.loads(done.stdout)["findings"]
    return done.returncode, found


def said(found: list[dict[str, str]], level: str) -> str:
    return "\n".join(f"{one['about']}: {one['what']}" for one in found if one["level"] == level)


def left_by(service: Service) -> str:
    lines = said(diagnosis(service)[1], "note").splitlines()
    return "\n".join(one for one in lines if one.startswith("left") and str(service.root) in one)


def test_healthy_service_is_0_before_and_while_it_runs(make: Serve) -> None:
    service = make()
    status, found = diagnosis(service)
    assert (status, said(found, "hurts")) == (0, "")
    assert "not running" in said(found, "ok")
    assert not service.run_dir.exists(), "it only looks"
    service.start()
    status, found = diagnosis(service)
    assert (status, said(found, "hurts")) == (0, "")
    assert f"pid {service.master} runs" in said(found, "ok")
    assert "nothing would hurt" in service.ok("doctor").stdout


def test_broken_config_is_named_with_its_line_and_the_rest_is_looked_at(make: Serve) -> None:
    service = make()
    service.config_path.write_text("app: app:server\nworker_nun: 3\n")
    status, found = diagnosis(service)
    assert status == 1
    assert "procd.yaml:2:1: worker_nun" in said(found, "hurts")
    assert "Python" in said(found, "ok")


def test_no_config_anywhere_is_no_error(make: Serve) -> None:
    service = make()
    words = [*service.argv()[:3], "doctor"]
    done = subprocess.run(
        words, env=service.environment(), cwd="/", capture_output=True, text=True, check=False
    )
    assert "no config here" in done.stdout, done.stderr


@needs_root
def test_folders_are_tried_as_the_user_who_needs_them(make: Serve) -> None:
    service = make(user=str(NOBODY))
    service.root.chmod(0o700)
    status, found = diagnosis(service)
    assert status == 1
    assert f"may not read {service.root}" in said(found, "hurts")
    service.root.chmod(0o755)
    assert diagnosis(service)[0] == 0


def test_what_a_killed_master_left_is_named_until_the_next_start(make: Serve) -> None:
    service = make().start()
    service.kill(service.master)
    service.wait_for(lambda: not service.alive(), 5)
    status, mine = diagnosis(service)[0], left_by(service)
    assert status == 0
    assert [kind for kind in ("queue", "record", "arena") if kind in mine] == [
        *("queue", "record", "arena")
    ]
    service.start()
    assert left_by(service) == ""


def test_max_conn_does_not_end_at_the_usual_soft_limit(make: Serve) -> None:
    service = make(worker_num=1)
    words = ["sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh", *service.argv("start")]
    subprocess.run(words, env=service.environment(), cwd="/", check=True, capture_output=True)
    soft, hard = service.ask("__import__('resource').getrlimit(7)")
    assert soft == hard > 256


@needs_root
def test_check_says_that_workers_would_run_as_root(make: Serve) -> None:
    service = make()
    done = service.run("check")
    assert (done.returncode, "set `user`" in done.stderr) == (0, True)
