"""Options of tasks from outside: procd.Client and `procd task send --option`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from procd import Client, TaskCancelled, TaskExpired, TaskFailed, TaskRejected, TaskTimeout
from procd.tasks.options import Given
from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.test_dead_letters import ledger_pid, tasks
from tests.service.test_durable import cut_the_power
from tests.service.test_keys import is_over

SECONDS = 20.0


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.config_path) as client:
        yield client


# ---------------------------------------------------------------- options


def test_options_do_for_a_program_what_they_do_for_a_worker(
    service: Service, client: Client
) -> None:
    retried = client.options(retries=2, retry_delay=0).send("app.work", "1 / (task.attempt - 1)")
    assert retried.result(SECONDS) == 1
    slow = client.options(timeout=0.05).send("app.work", "time.sleep(9)")
    with pytest.raises(TaskTimeout):
        slow.result(SECONDS)
    held = service.occupy(2)
    late = client.options(ttl=0.01, priority=1).send("app.work", "1")
    last = client.options(priority=9).task("ran(9)")
    first = client.options(priority=9).options(priority=2).task("ran(2)")
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 3, 10)
    held.unlink()
    with pytest.raises(TaskExpired):
        late.result(SECONDS)
    assert [first.result(SECONDS), last.result(SECONDS)] == [2, 9]


def test_a_delayed_task_runs_when_it_is_due_or_is_cancelled(client: Client) -> None:
    sent = time.time()
    at = client.options(delay=0.2).send("app.work", "time.time()").result(SECONDS)
    assert isinstance(at, float)
    assert at >= sent + 0.2
    waiting = client.options(delay=600).send("app.work", "1")
    assert waiting.cancel() is True
    with pytest.raises(TaskCancelled):
        waiting.result(SECONDS)
    assert waiting.cancel() is False


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"priority": 0}, ValueError, "priority=0: it takes 1 to 9"),
        ({"retry": 1}, TypeError, "no option 'retry'"),
        ({"delay": 1, "at": 2}, ValueError, "one of them"),
    ],
)
def test_an_option_that_cannot_be_is_said_in_the_program(
    client: Client, given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        client.options(**cast("Given", given))


# ---------------------------------------------------------------- keys


def test_programs_and_workers_that_send_one_key_share_one_task(
    service: Service, client: Client
) -> None:
    held = service.occupy(2)
    first = client.options(key="k").send("app.work", "ran(1)")
    again = client.options(key="k").send("app.work", "ran(2)")
    with Client(service.config_path) as other, service.connect() as worker:
        third = other.options(key="k").send("app.work", "ran(3)")
        worker.post("[r := work.options(key='k').send('ran(4)'), r.id, await r][1:]")
        assert first.id == again.id == third.id
        service.wait_for(lambda: service.status()["tasks"]["queued"] == 1, 10)
        held.unlink()
        assert [ref.result(SECONDS) for ref in (first, again, third)] == [1, 1, 1]
        assert worker.read_answer(10)[1] in (1, 4)  # 4 if it came when that was over
    service.wait_for(lambda: is_over(service), 10)


def test_a_program_gets_the_result_of_a_task_that_a_worker_sent(
    service: Service, client: Client
) -> None:
    held = service.occupy(2)
    with service.connect() as worker:
        number = worker.ask("work.options(key='k').send('ran(1)').id")
        ref = client.options(key="k").send("app.work", "ran(2)")
        assert ref.id == number
        held.unlink()
        assert ref.result(SECONDS) == 1
    held = service.occupy(2)
    victim = service.ask("[work.options(key='k').send('ran(1)').id, os.getpid()][1]")
    lost = client.options(key="k").send("app.work", "ran(2)")
    service.kill(victim)
    with pytest.raises(TaskFailed, match="whoever sent it is gone"):
        lost.result(SECONDS)
    # Known before it is sent, now.
    lost = client.options(key="k").send("app.work", "ran(2)")
    with pytest.raises(TaskFailed, match="whoever sent it is gone"):
        lost.result(SECONDS)
    assert lost.cancel() is True
    held.unlink()
    service.wait_for(lambda: is_over(service), 10)


# ---------------------------------------------------------------- durable


def test_a_durable_task_is_accepted_when_it_is_on_the_disk(serve: Serve) -> None:
    service = serve()
    ledger = ledger_pid(service)
    with Client(service.config_path) as client:
        client.task("0").result(SECONDS)
        service.kill(ledger, signal.SIGSTOP)
        ref = client.options(delivery="durable", delay=600, key="d").send("app.work", "ran(1)")
        with pytest.raises(TaskTimeout):
            ref.accepted(0.2)
        service.kill(ledger, signal.SIGCONT)
        ref.accepted(SECONDS)
        again = client.options(delivery="durable", key="d").send("app.work", "ran(1)")
        again.accepted(SECONDS)
        assert again.id == ref.id
    cut_the_power(service, loses_arena=True)
    service.start()
    service.wait_for(lambda: service.status()["tasks"]["delayed"] == 1, 10)
    with Client(service.config_path) as client:
        found = client.options(delivery="durable", key="d").send("app.work", "ran(2)")
        found.accepted(SECONDS)
        assert found.id == ref.id
        assert found.cancel() is True
    service.wait_for(lambda: is_over(service), 10)


def test_durable_tasks_bring_their_results_once(service: Service, client: Client) -> None:
    ledger_pid(service)
    before = service.status()["tasks"]["unread"]
    refs = [client.options(delivery="durable").task(f"{n}") for n in range(100)]
    for ref in refs:
        ref.accepted(SECONDS)
    assert [ref.result(SECONDS) for ref in refs] == list(range(100))

    async def main() -> list[object]:
        async with Client(service.config_path) as awaited:
            sending = awaited.options(delivery="durable")
            found = [sending.task(f"{n}") for n in range(100)]
            assert len({await ref.accepted() for ref in found}) == 100
            waiting = awaited.options(delay=600).task("1")
            assert await waiting.cancel() is True
            with pytest.raises(TaskCancelled):
                await waiting
            return list(await asyncio.gather(*found))

    assert asyncio.run(main()) == list(range(100))
    assert service.status()["tasks"]["unread"] == before


def test_a_full_disk_is_rejected_at_accepted(make: Serve) -> None:
    service = make()
    service.start()
    ledger_pid(service)
    with Client(service.config_path) as client:
        client.task("0").result(SECONDS)
        lock_the_ledger(service)
        ref = client.options(delivery="durable").send("app.work", "ran(1)")
        with pytest.raises(TaskRejected, match="not accepted"):
            ref.accepted(SECONDS)
        with pytest.raises(TaskRejected, match="not accepted"):
            ref.result(SECONDS)
    assert service.runs() == {}


def lock_the_ledger(service: Service) -> None:
    """Let the ledger's file grow no further."""
    import resource

    size = max(path.stat().st_size for path in (service.root / "state").glob("ledger.sqlite*"))
    resource.prlimit(ledger_pid(service), resource.RLIMIT_FSIZE, (size, size))


# ---------------------------------------------------------------- from a shell


def test_a_shell_sends_with_options(service: Service) -> None:
    ledger_pid(service)
    options = ("-o", "delivery=durable", "--option", "delay=600", "-o", "key=7")
    done = service.ok("task", "send", *options, "app.ran", "7", "--json")
    number = json.loads(done.stdout)["id"]
    again = service.ok("task", "send", "-o", "key=7", "app.ran", "8")
    assert again.stdout == f"accepted {number}\n"
    assert [task["id"] for task in tasks(service, "--state", "delayed")] == [number]
    service.ok("task", "cancel", str(number))
    past = ("-o", "at=2020-01-01T00:00+00:00")
    assert service.ok("task", "send", *past, "app.same", "5", "--wait").stdout == "5\n"


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        ("priority=0", "--option priority=0: it takes 1 to 9"),
        ("nope=1", "--option no option 'nope'"),
        ("durable", "--option durable: it takes NAME=VALUE"),
        ("at=soon", "--option at=soon: Invalid isoformat"),
    ],
)
def test_an_option_that_cannot_be_is_a_usage_error(service: Service, pair: str, text: str) -> None:
    done = service.run("task", "send", "-o", pair, "app.ran", "7")
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert os.linesep not in done.stderr.strip()
