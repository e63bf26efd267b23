"""What processes print and log reaches the log, whole, with the name of who said it."""

from __future__ import annotations

import json
import os
import re
import signal
from datetime import datetime, timedelta

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.logbook import entries, messages, wait_for

EXTRA = """
import logging, subprocess, sys, traceback

print("imported")


def both() -> None:
    print("printed first")
    print("no end", end="")
    logging.getLogger("shop").warning("logged\\nin two lines")
    logging.getLogger("shop").info("below the level of logging")
    sys.stderr.write("printed last\\n")


def fails() -> None:
    try:
        try:
            {}["first"]
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError:
        traceback.print_exc()
    print("afterwards")


def spin() -> int:"""


@pytest.fixture
def spoken(make: Serve) -> Service:
    """A service that writes JSON, with an app that has much to say."""
    service = make(log_format="json")
    service.edit("def spin() -> int:", EXTRA)
    return service.start()


def worker_id(service: Service, pid: int) -> int:
    return service.seats().index(pid)


def test_what_is_printed_and_logged_has_level_and_name_and_its_order(spoken: Service) -> None:
    spoken.ask("both()")
    last = wait_for(spoken, "printed last")
    said = [e for e in entries(spoken) if e["role"] == "worker" and e["pid"] == last["pid"]]
    assert [(e["level"], e["message"]) for e in said] == [
        ("info", "printed first"),
        ("info", "no end"),
        ("warning", "logged\nin two lines"),
        ("info", "printed last"),
    ]
    number = worker_id(spoken, last["pid"])
    assert {(e["id"], e["generation"]) for e in said} == {(number, 1)}


def test_a_task_worker_and_the_import_are_named_as_well(spoken: Service) -> None:
    spoken.task("print('from a task')")
    said = wait_for(spoken, "from a task")
    assert (said["role"], said["id"] in (2, 3), said["generation"]) == ("task", True, 1)
    said = wait_for(spoken, "imported")
    assert (said["role"], said["id"], said["generation"]) == ("template", None, 1)
    spoken.reload()
    spoken.ask("print('of the second')")
    assert wait_for(spoken, "of the second")["generation"] == 2


def test_task_workers_have_the_ids_of_status_after_a_scale(spoken: Service) -> None:
    spoken.ok("scale", "worker=3")
    for _ in range(20):
        spoken.task("print(server.worker_id)")
    spoken.wait_for(lambda: len(messages(spoken, role="task")) == 20, 5)
    assert all(str(e["id"]) == e["message"] for e in entries(spoken) if e["role"] == "task")


def test_a_traceback_is_one_entry_whoever_writes_it(spoken: Service) -> None:
    spoken.ask("fails()")
    wait_for(spoken, "afterwards")
    (error,) = [e for e in entries(spoken) if e["level"] == "error"]
    assert error["message"].startswith("Traceback (most recent call last):\n")
    assert "KeyError: 'first'\n\nThe above exception was the direct cause" in error["message"]
    assert error["message"].endswith("ValueError: second")
    with spoken.connect() as client:
        client.post("raise in a handler")
        assert client.is_closed(5)
    spoken.wait_for(lambda: "in a handler" in spoken.log(), 5)
    (raised,) = [e for e in entries(spoken) if "RuntimeError: in a handler" in e["message"]]
    assert (raised["level"], raised["role"]) == ("error", "worker")


def test_what_a_subprocess_prints_is_its_workers(spoken: Service) -> None:
    pid = spoken.ask("os.system('echo from a shell') or os.getpid()")
    assert wait_for(spoken, "from a shell")["pid"] == pid


def test_last_words_are_heard_the_half_line_and_the_dump(spoken: Service) -> None:
    with spoken.connect() as client:
        client.post("print('no end', end='', flush=True) or os.abort()")
        assert client.is_closed(5)
    dead = wait_for(spoken, "no end")["pid"]
    spoken.wait_for(lambda: any("Fatal" in text for text in messages(spoken, pid=dead)), 5)
    (dump,) = [e for e in entries(spoken) if e["message"].startswith("Fatal Python error: Aborted")]
    assert dump["level"] == "error"
    assert 'app.py", line ' in dump["message"]
    with spoken.connect() as client:
        client.post("print('killed', end='', flush=True) or os.kill(os.getpid(), 9)")
        assert client.is_closed(5)
    wait_for(spoken, "killed")


def test_the_time_is_that_of_the_event_and_utc(spoken: Service) -> None:
    spoken.ask("print('now')")
    said = datetime.fromisoformat(wait_for(spoken, "now")["time"])
    assert said.utcoffset() == timedelta(0)
    age = datetime.now(said.tzinfo) - said
    assert timedelta(0) <= age < timedelta(seconds=30)


def test_a_long_line_is_cut_and_the_next_one_whole(spoken: Service) -> None:
    spoken.ask("print('x' * 1_000_000 + '\\nnext')")
    wait_for(spoken, "next")
    (cut,) = [text for text in messages(spoken, role="worker") if text.startswith("xxx")]
    assert cut == "x" * 65536 + " [cut: 934,464 more bytes]"


# ---------------------------------------------------------------- where it goes


def test_text_names_role_id_generation_and_pid(service: Service) -> None:
    pid = service.ask("print('hello') or os.getpid()")
    number = service.seats().index(pid)
    name = re.escape(f"info worker-{number}@1[{pid}] hello\n")
    line = re.compile(rf"^\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}} {name}", re.MULTILINE)
    service.wait_for(lambda: line.search(service.log()), 5)


def test_in_the_foreground_without_a_file_stderr_has_all(make: Serve) -> None:
    service = make(log_file=None)
    service.start_foreground()
    service.ask("print('hello')")
    out = service.root / "foreground.out"
    service.wait_for(lambda: "hello" in out.read_text(), 5)
    assert "\x1b" not in out.read_text()
    service.stop()
    assert "master" in out.read_text().splitlines()[-1]
    assert " stopped tasks_kept=0" in out.read_text().splitlines()[-1]
    assert not service.log()


def test_in_the_foreground_with_a_file_both_have_all(make: Serve) -> None:
    service = make()
    service.start_foreground()
    service.ask("print('hello')")
    out = service.root / "foreground.out"
    service.wait_for(lambda: "hello" in out.read_text() and "hello" in service.log(), 5)
    service.stop()
    assert out.read_text() == service.log()


def test_the_log_level_is_about_records_and_what_is_printed_stays(make: Serve) -> None:
    service = make(log_level="error", log_format="json").start()
    service.ask("print('hello')")
    wait_for(service, "hello")
    assert {entry["message"] for entry in entries(service)} == {"hello"}


def test_an_app_that_closes_its_stdout_serves_on(service: Service) -> None:
    with service.connect() as client:
        assert client.ask("os.close(1) or os.close(2)") is None
        assert client.ask("server.worker_id") in (0, 1)
        client.post("raise unheard")
        assert client.is_closed(5)
    assert service.ask("1 + 1") == 2


def test_a_reader_of_stderr_that_does_not_read_holds_up_nobody(make: Serve) -> None:
    service = make(log_rate=None)
    reader, writer = os.pipe()
    service.start_foreground(stderr=writer)
    os.close(writer)
    for _ in range(5):
        assert service.ask("print('x' * 100_000)") is None
    assert service.reload().returncode == 0
    service.wait_for(lambda: service.log().count("xxx") >= 5, 5)  # the file has them all
    service.stop()
    os.close(reader)


def test_the_logger_is_a_process_as_the_others(service: Service) -> None:
    (logger,) = service.processes("logger")
    assert logger["generation"] == 0
    log = json.loads(service.ok("status", "--json").stdout)["log"]
    assert log == {
        "file": str(service.run_dir / "procd.log"),
        "formats": ["text"],
        "held_back": 0,
        "lost": 0,
        "error": None,
    }
    assert "logger" in service.ok("status").stdout
    service.kill(service.master, signal.SIGTERM)
    service.wait_for_end(logger["pid"], 8)
