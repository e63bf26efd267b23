"""Who dies takes nothing with him that the log should have, and leaves no descriptor."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, scaled
from tests.service.logbook import entries, logger_pid, messages, of_two_workers, wait_for


@pytest.fixture
def service(make: Serve) -> Service:
    return make(log_format="json", worker_num=2, task_worker_num=1).start()


def state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def halt(service: Service, pid: int) -> None:
    service.kill(pid, signal.SIGSTOP)
    service.wait_for(lambda: state_of(pid) == "T", 5)


def test_a_killed_logger_loses_nothing_of_what_lay_in_the_pipes(service: Service) -> None:
    old = logger_pid(service)
    halt(service, old)
    printer = service.ask("[print('line', n) for n in range(500)] and os.getpid()")
    service.kill(old)
    logger_pid(service, but=old)
    wait_for(service, "line 499")
    assert messages(service, pid=printer) == [f"line {n}" for n in range(500)]
    assert {e["role"] for e in entries(service) if e["pid"] == printer} == {"worker"}
    (death,) = [text for text in messages(service, role="master") if text.startswith("died")]
    assert "role=logger" in death
    assert "by=SIGKILL" in death


def test_who_prints_waits_for_the_next_logger_and_is_not_ended(service: Service) -> None:
    old = logger_pid(service)
    with of_two_workers(service) as (client, other):
        halt(service, old)
        client.post("len([print('x' * 99) for n in range(3000)])")  # more than a pipe holds
        assert other.ask("6 * 7") == 42
        service.kill(old)
        assert client.read_line() == b"3000"
    assert all(p["restarts"] == 0 for p in service.processes("worker"))
    service.wait_for(lambda: messages(service).count("x" * 99) == 3000, 10)


def test_a_logger_is_replaced_again_and_again(service: Service) -> None:
    pid = 0
    for number in range(4):
        pid = logger_pid(service, but=pid)
        service.ask(f"print('number', {number})")
        wait_for(service, f"number {number}")
        service.kill(pid)
    logger_pid(service, but=pid)
    service.task("print('of a task')")
    assert wait_for(service, "of a task")["role"] == "task"
    assert service.reload().returncode == 0


def test_records_of_the_master_are_there_while_no_logger_is(service: Service) -> None:
    old = logger_pid(service)
    halt(service, old)
    service.ok("scale", "worker=3")
    service.kill(old)
    logger_pid(service, but=old)
    wait_for(service, "scaled worker=3 task=1")
    assert messages(service).count("scaled worker=3 task=1") == 1


def test_at_a_stop_the_master_writes_what_a_stuck_logger_has_not(service: Service) -> None:
    halt(service, logger_pid(service))
    service.ask("print('the last line')")
    service.stop()
    said = messages(service)
    assert "the last line" in said
    assert said.count("stopped tasks_kept=0") == 1


def test_a_stop_writes_all_that_was_printed(service: Service) -> None:
    service.ask("print('\\n'.join(f'line {n}' for n in range(1000)))")
    service.stop()
    assert [text for text in messages(service) if text.startswith("line")] == [
        f"line {n}" for n in range(1000)
    ]
    assert messages(service)[-1] == "stopped tasks_kept=0"


def test_who_inherited_a_pipe_and_lives_on_hangs_nobody(service: Service) -> None:
    start = "__import__('subprocess').Popen(['sleep', '1000']).pid"
    with service.connect() as client:
        child, worker = client.ask(f"({start}, os.getpid())")
        client.ask("print('half', end='', flush=True)")
        service.kill(worker)
        assert client.is_closed(5)
    wait_for(service, "half")
    service.kill(logger_pid(service))
    assert child in service.alive()
    begun = time.monotonic()
    service.stop()
    assert time.monotonic() - begun < 5
    assert child not in service.alive()


def test_processes_that_come_and_go_leave_no_descriptor_behind(service: Service) -> None:
    def descriptors() -> list[int]:
        pids = (service.master, logger_pid(service))
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]

    def settled() -> bool:
        spare = service.processes("spare")
        return bool(spare) and not service.processes("worker", "draining")

    service.reload()
    service.wait_for(settled, 10)
    before = descriptors()
    for _ in range(scaled(500)):
        service.reload()
    service.wait_for(settled, 10)
    service.wait_for(lambda: descriptors() == before, 10, f"again {before}")


def test_a_killed_master_takes_the_logger_with_it(service: Service) -> None:
    logger = logger_pid(service)
    service.kill(service.master)
    service.wait_for_end(logger, 5)
    service.start()
    service.ask("print('after')")
    wait_for(service, "after")
