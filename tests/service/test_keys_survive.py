"""A key has one live task, whoever dies: processes, the service, the machine."""

from __future__ import annotations

import itertools
import json
import random
from contextlib import ExitStack, suppress

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled
from tests.service.test_dead_letters import ledger_pid, tasks
from tests.service.test_durable import cut_the_power
from tests.service.test_keys import ONE, is_over, two_workers
from tests.service.test_task_options_survive import kill_all

# ---------------------------------------------------------------- what it outlives


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_key_outlives_the_end_of_the_service(serve: Serve, how: str) -> None:
    service = serve()
    first = service.ask("work.options(key='k', delay=600).send('ran(1)').id")
    if how == "stop":
        service.stop()
    else:
        kill_all(service)
    service.start()
    again = service.ask("[r := work.options(key='k').send('ran(2)'), r.id, r.cancel()][1:]")
    assert again == [first, True]
    service.wait_for(lambda: is_over(service), 10)
    assert service.ask("await work.options(key='k').send('ran(3)')") == 3


@pytest.mark.parametrize("loses_arena", [True, False])
def test_a_durable_tasks_key_outlives_a_power_cut(serve: Serve, *, loses_arena: bool) -> None:
    service = serve()
    ledger_pid(service)
    sent = "work.options(key='k', delivery='durable', delay=600).send('ran(1)')"
    first = service.ask(f"[r := {sent}, await r.accepted(), r.id][2]")
    cut_the_power(service, loses_arena=loses_arena)
    service.start()
    service.wait_for(lambda: service.status()["tasks"]["delayed"] == 1, 10)
    again = "work.options(key='k', delivery='durable').send('ran(2)')"
    found = service.ask(f"[r := {again}, await r.accepted(), r.id, r.cancel()][2:]")
    assert found == [first, True]
    service.wait_for(lambda: is_over(service), 10)
    assert service.ask("await work.options(key='k').send('ran(3)')") == 3


def test_a_second_durable_send_is_accepted_when_the_first_is(service: Service) -> None:
    ledger_pid(service)
    first, second = two_workers(service)
    with first, second:
        for turn in range(20):
            sent = f"work.options(key='d{turn}', delivery='durable', delay=0.05).send('{turn}')"
            ask = f"[r := {sent}, await r.accepted(), r.id, await outcome(r)][2:]"
            first.post(ask)
            second.post(ask)
            answers = [first.read_answer(10), second.read_answer(10)]
            assert [value for _, value in answers] == [turn, turn]
            assert answers[0][0] == answers[1][0]


def test_who_looks_when_it_is_over_and_gone_hears_that_it_was_accepted(service: Service) -> None:
    """The slot has another task by then: only its owner can tell."""
    ledger_pid(service)
    runs, looks = service.root / "runs", service.root / "looks"
    runs.touch()
    looks.touch()
    first, second = two_workers(service)
    task = f"hold({str(runs)!r}) and 7"
    sent = f"work.options(key='late', delivery='durable').send({task!r})"
    with first, second:
        first.ask(f"conn.state.update(ref={sent})")
        busy = f"note('sent', 0) or hold({str(looks)!r})"  # a loop that does not turn meanwhile
        second.post(f"[r := {sent}, {busy}, await r.accepted(), await outcome(r)][3]")
        service.wait_for(lambda: service.ledger("sent"), 10)
        runs.unlink()
        assert first.ask("await conn.state['ref']") == 7
        first.ask("[await work.send('0') for _ in range(100)] and 0")
        looks.unlink()
        assert second.read_answer(10) == 7


def test_a_dead_letter_that_is_retried_waits_for_the_key(serve: Serve) -> None:
    service = serve()
    ledger_pid(service)
    cure = service.root / "cured"
    expression = f"open({str(cure)!r}).close() or ran(1)"
    service.ask(
        f"await outcome(work.options(key='k', retries=1, retry_delay=0).send({expression!r}))"
    )
    (letter,) = tasks(service, "--state", "dead")
    cure.touch()
    held = service.root / "held"
    held.touch()
    service.ask(f"work.options(key='k').send(\"hold({str(held)!r}) and ran(2)\").id")
    service.ok("task", "retry", str(letter["id"]))
    service.wait_for(lambda: service.status()["tasks"]["running"] == 1, 10)
    pause(0.3)
    assert service.runs() == {}
    held.unlink()
    service.wait_for(lambda: service.runs() == {1: 1, 2: 1}, 10)
    assert [row[0] for row in service.ledger("ran")] == [2, 1]


# ---------------------------------------------------------------- under fire


def test_runs_of_one_key_never_overlap_while_anybody_is_killed(serve: Serve) -> None:
    service = serve(task_worker_num=3, task_max_attempts=50)
    rng = random.Random(7)
    work = "note('begin', task.id) or time.sleep(0.002) or note('end', task.id)"
    many = f"[[{ONE}.send({work!r}).id, await asyncio.sleep(0)] for n in range(50)] and 50"
    sent = 0
    while sent < scaled(20_000):
        victim = rng.choice(service.wait_for(service.seats, 10))
        with ExitStack() as stack:
            clients = [stack.enter_context(service.connect()) for _ in range(4)]
            for client in clients:
                client.post(many)
            pause(rng.random() / 50)
            service.kill(victim)
            for client in clients:
                with suppress(OSError, EOFError):  # its worker was the victim
                    sent += client.read_answer(10)
    service.wait_for(lambda: is_over(service), 30)
    ids = [row[0] for row in told(service)]
    # A task that was begun is over before another one begins, whoever died on the way.
    assert len([task for task, _ in itertools.groupby(ids)]) == len(set(ids))
    assert len(set(ids)) > 5


def told(service: Service) -> list[list[int]]:
    """What began and ended, in that order."""
    rows = [json.loads(line) for line in service.ledger_path.read_text().splitlines()]
    return [row[1:] for row in rows if row[0] in ("begin", "end")]
