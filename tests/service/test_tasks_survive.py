"""No task is lost: not in a burst, not when the process that runs it or sent it dies."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import sysv_ipc

from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled

# How long the app leaves results unread: 5 s in the full count.
UNREAD = 5 if scaled(20) == 20 else 1


@pytest.mark.heavy
def test_burst_from_one_worker_arrives_though_nobody_reads_results(serve: Serve) -> None:
    count = scaled(20_000)
    service = serve(task_slots=max(4096, 2 * count))
    with service.connect() as client:
        worker = client.ask("os.getpid()")
        # The worker's loop stands still while its task workers finish: results pile up.
        client.post(f"flood('{{}}', 0, {count}) and blocking({UNREAD})")
        client.read_answer(60)
        service.wait_for(lambda: client.ask("len(finished)", 60) == count, 60)
        assert client.ask("sorted(r for _, r in finished) == list(range(len(finished)))")
    status = Path(f"/proc/{worker}/status").read_text()
    (rss,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    assert int(rss) < 300_000
    assert service.status()["tasks"]["queued"] == 0


@pytest.mark.heavy
def test_burst_beyond_the_slots_arrives_when_the_app_tries_again(serve: Serve) -> None:
    count = scaled(100_000)
    service = serve(task_slots=1024)
    with service.connect() as client:
        client.post(f"await persist('{{}}', {count})")
        assert client.read_answer(120) == count
        service.wait_for(lambda: client.ask("len(finished)", 60) == count, 60)
        assert client.ask("sorted(r for _, r in finished) == list(range(len(finished)))")


@pytest.mark.short
def test_task_of_a_killed_task_worker_runs_again(service: Service) -> None:
    with service.connect() as client:
        client.post("await server.task('note(\"at\", task.attempt, os.getpid()) or blocking(1)')")
        ((attempt, pid),) = service.wait_for(lambda: service.ledger("at"), 5)
        service.kill(pid)
        assert client.read_answer()["version"] == "1"
    assert attempt == 1
    assert [row[0] for row in service.ledger("at")] == [1, 2]
    assert service.status()["tasks"]["retried"] == 1


def test_task_of_a_killed_dispatcher_runs(service: Service) -> None:
    service.ask("flood('blocking(0.3)', 0, 2)")
    with service.connect() as client:
        victim = client.ask("os.getpid()")
        assert client.ask("flood('ran({})', 0, 50)") == 50
        service.kill(victim)
    service.wait_for(lambda: len(service.runs()) == 50, 10)
    assert service.runs() == dict.fromkeys(range(50), 1)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 5)


def test_slots_of_killed_dispatchers_return(serve: Serve) -> None:
    service = serve(task_slots=256)
    for number in range(6):
        with service.connect() as client:
            victim = client.ask("os.getpid()")
            client.ask(f"flood('ran({{}})', {number * 20}, 20)")
            service.kill(victim)
            service.wait_for_end(victim, 2)
        service.reload()  # ends the backoff
    service.wait_for(lambda: len(service.runs()) == 120, 10)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 5)
    assert service.ask("fill('1', 120)")["error"] is None


@pytest.mark.parametrize("death", ["os._exit(9)", "os.kill(os.getpid(), 11)"])
def test_poison_task_goes_dead_and_the_await_raises(serve: Serve, death: str) -> None:
    service = serve(task_max_attempts=2)
    answer = service.ask(f"await server.task({f'note(1) or {death}'!r})", 30)
    assert answer["error"] == "TaskFailed"
    assert len(service.ledger_path.read_text().splitlines()) == 2
    assert service.status()["tasks"]["dead"] == 1
    assert service.task("1", 30) == 1


def test_poison_task_does_not_take_others_with_it(serve: Serve) -> None:
    service = serve(task_max_attempts=2)
    service.ask("server.task('os._exit(9)').id")
    service.ask("flood('ran({})', 0, 50)")
    service.wait_for(lambda: len(service.runs()) == 50, 20)
    assert service.runs() == dict.fromkeys(range(50), 1)


def test_removed_queue_is_made_anew_and_refilled(service: Service) -> None:
    before = leftovers.queues() - service.queues_before
    assert before
    service.ask("flood('blocking(0.5)', 0, 2)")
    service.ask("flood('ran({})', 0, 20)")
    for queue_id in before:
        sysv_ipc.remove_message_queue(queue_id)
    service.wait_for(lambda: len(service.runs()) == 20, 10)
    assert service.task("1") == 1


@pytest.mark.heavy
def test_every_accepted_task_runs_while_processes_are_killed(serve: Serve) -> None:
    service = serve(task_max_attempts=20, worker_num=3, task_worker_num=3)
    rng = random.Random(7)
    accepted: list[int] = []
    killed: set[int] = set()
    for turn in range(scaled(400)):
        accepted += _post_ten(service, turn * 10)
        seats = service.wait_for(service.seats, 10)
        victim = rng.choice(seats)
        killed.add(victim)
        service.kill(victim, signal.SIGKILL)
        pause(rng.random() / 10)
    service.wait_for(lambda: set(service.runs()) >= set(accepted), 60)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 10)
    twice = [row for row in service.ledger("ran") if service.runs()[row[0]] > 1]
    for number in {row[0] for row in twice}:
        *earlier, _last = [row[1] for row in twice if row[0] == number]
        assert set(earlier) <= killed
    assert leftovers.zombies(service.master) == set()


def _post_ten(service: Service, first: int) -> list[int]:
    """Hand over ten tasks; those that a living worker said it accepted."""
    try:
        service.ask(f"flood('ran({{}}) and time.sleep(0.01)', {first}, 10)", 5)
    except (OSError, EOFError):
        return []  # its worker died before it could answer
    return list(range(first, first + 10))
