"""The status page as a person sees it: what is wrong first, 80 columns, colours or none."""

from __future__ import annotations

import copy
import io
import os
import pty
import re
import select
import subprocess
from typing import Any

import pytest
from rich.console import Console

from procd.cli.page import show
from tests.service.daemon import Service

GOOD: dict[str, Any] = {
    "state": "running",
    "pid": 71,
    "generation": 3,
    "uptime": 12.4,
    "config": {"error": None, "needs_restart": []},
    "listeners": ["tcp://127.0.0.1:9000"],
    "processes": [
        {
            "id": 0,
            "role": "worker",
            "pid": 80,
            "generation": 3,
            "state": "ready",
            "restarts": 0,
            "connections": 2,
            "requests": 190,
            "rss_bytes": 21000000,
            "pss_bytes": 3000000,
        },
    ],
    "tasks": dict.fromkeys(
        (
            *("queued", "running", "done", "failed", "retried", "dead", "refused", "unread"),
            *("delayed", "expired", "cancelled"),
        ),
        0,
    ),
    "reload": {
        "state": "ok",
        "seconds": 0.031,
        "error": None,
        "cause": ["app.py"],
        "steps": {"import": 0.02, "fork": 0.01},
        "refusal": None,
    },
    "base": {"is_warm": True, "preloaded": 3, "left_out": {}, "unfit": None},
    "ingress": None,
    "leftovers": [],
}


def drawn(page: dict[str, Any], width: int = 80, **options: Any) -> list[str]:
    out = io.StringIO()
    show(page, Console(file=out, width=width, highlight=False, **options))
    return out.getvalue().splitlines()


@pytest.fixture
def page() -> dict[str, Any]:
    return copy.deepcopy(GOOD)


def test_page_of_a_healthy_service_is_the_service_the_tasks_and_who_runs(
    page: dict[str, Any],
) -> None:
    assert drawn(page) == [
        "running  pid 71  generation 3  up 12s  tcp://127.0.0.1:9000",
        "last reload 31 ms: app.py",
        "  import 20 ms  fork 10 ms",
        "tasks  queued 0  running 0  done 0  failed 0  retried 0  dead 0  refused 0",
        "id  role    pid  gen  state  conn  reqs  died    rss   pss",
        " 0  worker   80    3  ready     2   190     0  20.0M  2.9M",
    ]


def test_counts_that_are_seldom_are_shown_where_there_are_any(page: dict[str, Any]) -> None:
    page["tasks"] |= {"delayed": 3, "cancelled": 1}
    text = " ".join(" ".join(drawn(page)).split())
    assert "delayed 3 cancelled 1" in text
    assert "expired" not in text


def test_what_is_wrong_stands_first(page: dict[str, Any]) -> None:
    page["config"] = {"error": "procd.yaml:3:1: no", "needs_restart": ["user"]}
    page["reload"] |= {"state": "refused", "error": "app.py:2: SyntaxError"}
    page["processes"].append(
        {"id": 1, "role": "worker", "pid": None, "generation": 3, "state": "backoff"}
        | {"restarts": 7, "retry_in": 1.25, "rss_bytes": None, "pss_bytes": None}
    )
    assert drawn(page)[:7] == [
        "config refused:",
        "procd.yaml:3:1: no",
        "reload refused: app.py",
        "app.py:2: SyntaxError",
        "worker 1 has died 7 times, starts again in 1.2 s: see the log",
        "needs a restart: user",
        "running  pid 71  generation 3  up 12s  tcp://127.0.0.1:9000",
    ]


def test_what_was_left_behind_is_named_in_one_line(page: dict[str, Any]) -> None:
    page["leftovers"] = [
        {"pid": 97, "of": "worker 0 pid 80", "command": "sleep 1000"},
        {"pid": 4194304, "of": None, "command": "python -m " + "x" * 200},
    ]
    lines = drawn(page)
    assert lines[0] == "left behind by worker 0 pid 80: pid 97  sleep 1000"
    assert lines[1].startswith("left behind: pid 4194304  python -m xxx")
    assert len(lines[1]) == 80


def test_large_numbers_and_many_listeners_fit_80_columns(page: dict[str, Any]) -> None:
    page |= {"pid": 4194304, "generation": 12345, "uptime": 9e6}
    page["listeners"] = [f"tcp://192.168.100.{n}:65535" for n in range(5)]
    page["tasks"] |= dict.fromkeys(page["tasks"], 987_654_321)
    page["processes"] = [
        {
            "id": 511,
            "role": "template",
            "pid": 4194304,
            "generation": 99999,
            "state": "draining",
            "restarts": 123456,
            "connections": 999999,
            "requests": 98765432109,
            "rss_bytes": 1 << 40,
            "pss_bytes": 1 << 39,
        }
    ] * 3
    lines = drawn(page)
    assert max(map(len, lines[1:])) <= 80, lines
    assert "…" not in "".join(lines)
    assert "  tcp://192.168.100.4:65535" in lines
    assert "98.8G" in lines[-1]


def test_app_that_prints_brackets_is_shown_as_it_is(page: dict[str, Any]) -> None:
    page["reload"] |= {"state": "refused", "error": "KeyError: '[bold]x[/]'"}
    assert "KeyError: '[bold]x[/]'" in drawn(page)


def told(service: Service, *, terminal: bool, **environ: str) -> str:
    """What `procd status` writes, to a terminal or to a pipe."""
    environment = service.environment() | {"TERM": "xterm-256color"} | environ
    reader, writer = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen(service.argv("status"), env=environment, stdout=writer):
        os.close(writer)
        said = b""
        while select.select([reader], [], [], 10)[0]:
            try:
                piece = os.read(reader, 65536)
            except OSError:  # EIO: a terminal's end
                break
            if not piece:
                break
            said += piece
    os.close(reader)
    return said.decode()


def test_colours_are_for_a_terminal_and_for_who_wants_them(service: Service) -> None:
    service.extra_environment["NO_COLOR"] = ""  # empty is not set
    colour = re.compile("\x1b\\[[0-9;]*3[0-9]m")
    assert colour.search(told(service, terminal=True))
    assert not colour.search(told(service, terminal=True, NO_COLOR="1"))
    assert "\x1b" not in told(service, terminal=False)
    assert colour.search(told(service, terminal=False, FORCE_COLOR="1"))


def test_what_foreign_programs_sent_has_a_line_and_a_queue_that_is_not_ours_stands_first() -> None:
    page = copy.deepcopy(GOOD)
    page["ingress"] = {
        "queue": "0x75034c97",
        "error": "queue 0x75034c97 belongs to uid 33: remove it",
        "taken": 12_345,
        "unaddressed": 2,
        "rejected": {"file": 3},
        "answers": 7,
        "answers_expired": 0,
        "answers_dropped": 1,
        "raced": 0,
    }
    lines = drawn(page)
    assert lines[0] == "public queue: queue 0x75034c97 belongs to uid 33: remove it"
    (line,) = [line for line in lines if line.startswith("foreign programs")]
    assert line.endswith("answers 7  dropped 1  rejected (file) 3")
    assert "expired" not in line
