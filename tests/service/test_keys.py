"""`key`: one live task of a name and key in the whole service, whoever sends the second one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.client import Client
from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled

ONE = "work.options(key='one')"


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


def is_over(service: Service) -> bool:
    counts = service.status()["tasks"]
    return not any(counts[name] for name in ("queued", "running", "delayed"))


def two_workers(service: Service) -> tuple[Client, Client]:
    """A connection to each of two workers."""
    first = service.connect()
    pid = first.ask("os.getpid()")
    while True:
        second = service.connect()
        if second.ask("os.getpid()") != pid:
            return first, second
        second.socket.close()


# ---------------------------------------------------------------- one process


def test_a_second_send_returns_the_ref_of_the_first(service: Service) -> None:
    held = service.occupy(2)
    with service.connect() as client:
        assert client.ask(
            f"conn.state.update(a={ONE}.send('ran(1)'), b={ONE}.send('ran(2)'))"
            " or conn.state['a'] is conn.state['b']"
        )
        # Another key, another name and none are other tasks.
        assert (
            client.ask(
                "len({conn.state['a'].id, work.options(key='two').send('0').id,"
                " work_async.options(key='one').send('0').id, work.send('0').id})"
            )
            == 4
        )
        held.unlink()
        assert client.ask("[await conn.state['a'], await conn.state['b']]") == [1, 1]
    assert service.runs() == {1: 1}
    service.wait_for(lambda: is_over(service), 10)


@pytest.mark.parametrize(
    ("options", "expression", "error"),
    [
        ("", "'done'", None),
        ("", "fail('why')", "TaskFailed"),
        ("retries=1, retry_delay=0", "fail('why')", "TaskFailed"),  # a dead letter
        ("max_attempts=1", "os._exit(9)", "TaskFailed"),
        ("timeout=0.05", "time.sleep(9)", "TaskTimeout"),
        ("ttl=0.001", "'late'", "TaskExpired"),
        ("delivery='durable'", "'done'", None),
    ],
)
def test_a_key_is_free_again_when_its_task_is_over(
    service: Service, options: str, expression: str, error: str | None
) -> None:
    held = service.occupy(2) if error == "TaskExpired" else None
    sent = f"work.options(key='k', {options}).send({expression!r})"
    with service.connect() as client:
        first = client.ask(f"conn.state.update(ref={sent}) or conn.state['ref'].id")
        if held:
            pause(0.01)
            held.unlink()
        answer = client.ask("await outcome(conn.state['ref'])", 20)
        assert (answer["error"] if error else answer) == (error or answer)
        second = client.ask("[r := work.options(key='k').send('7'), await r][0].id")
    assert second != first
    service.wait_for(lambda: is_over(service), 10)


def test_a_key_is_free_again_when_its_task_is_cancelled(service: Service) -> None:
    delayed = "work.options(key='c', delay=60).send('1')"
    assert service.ask(f"[r := {delayed}, r.cancel(), await outcome(r)][2]['error']") == (
        "TaskCancelled"
    )
    assert service.ask("await work.options(key='c').send('2')") == 2


def test_a_task_that_is_retried_keeps_its_key_between_its_tries(service: Service) -> None:
    again = "work.options(key='r', retries=1, retry_delay=600).send('fail(1)')"
    with service.connect() as client:
        first = client.ask(f"conn.state.update(ref={again}) or conn.state['ref'].id")
        service.wait_for(lambda: service.status()["tasks"]["delayed"] == 1, 5)
        assert client.ask("work.options(key='r').send('2').id") == first
        client.ask("conn.state['ref'].cancel()")
    service.wait_for(lambda: is_over(service), 10)


def test_there_is_room_for_a_key_for_each_task_slot(serve: Serve) -> None:
    service = serve(task_slots=256)
    held = service.occupy(2)
    said = service.ask(
        "[attempt(work.options(key=f'k{n}').send, 'ran(0)') for n in range(300)][-1]", 20
    )
    assert said["error"] == "TaskQueueFull"
    assert "all 256 slots are taken" in said["text"]
    held.unlink()
    service.wait_for(lambda: is_over(service), 20)


# ---------------------------------------------------------------- others


def test_the_result_also_comes_to_another_worker_which_sent_it_too(service: Service) -> None:
    held = service.occupy(2)
    first, second = two_workers(service)
    with first, second:
        ids = [
            client.ask(f"conn.state.update(ref={ONE}.send('ran({n})')) or conn.state['ref'].id")
            for n, client in enumerate((first, second))
        ]
        assert ids[0] == ids[1]
        first.post("await conn.state['ref']")
        second.post("await conn.state['ref']")
        held.unlink()
        assert [first.read_answer(10), second.read_answer(10)] == [0, 0]
        # on_finish is its sender's alone.
        count = f"len([n for n, _ in finished if n == {ids[0]}])"
        assert [first.ask(count), second.ask(count)] == [1, 0]
    assert service.runs() == {0: 1}


def test_a_failure_comes_to_whoever_sent_it_as_what_it_is(service: Service) -> None:
    answers = both(service, "await outcome(work.options(key='f').send('fail(3)'))")
    assert answers[0] == answers[1]
    assert "ValueError: 3" in answers[0]["text"]


def both(service: Service, expression: str) -> list[Any]:
    """Let two workers evaluate what waits for one task, and then let it run."""
    held = service.occupy(2)
    first, second = two_workers(service)
    with first, second:
        for client in (first, second):
            client.post(expression)
        # A worker that answers another connection has begun with this one.
        for client in two_workers(service):
            with client:
                client.ask("0")
        held.unlink()
        return [first.read_answer(10), second.read_answer(10)]


def test_who_asks_when_the_task_is_just_over_still_gets_its_result(service: Service) -> None:
    first, second = two_workers(service)
    with first, second:
        # Followers that look while it runs, and ask while it ends.
        for turn in range(scaled(1000)):
            sent = f"await outcome(work.options(key='race').send('{turn}'))"
            first.post(sent)
            second.post(sent)
            answers = [first.read_answer(10), second.read_answer(10)]
            assert set(answers) <= {turn}


def test_another_process_cancels_it_by_its_own_ref(service: Service) -> None:
    first, second = two_workers(service)
    with first, second:
        delayed = "work.options(key='x', delay=60).send('1')"
        first.ask(f"conn.state.update(ref={delayed})")
        first.post("await outcome(conn.state['ref'])")
        assert second.ask(f"[r := {delayed}, r.cancel(), await outcome(r)][2]['error']") == (
            "TaskCancelled"
        )
        assert first.read_answer(10)["error"] == "TaskCancelled"


def test_a_result_that_is_too_large_to_be_passed_on_says_so(service: Service) -> None:
    sent = "work.options(key='large').send(\"'x' * 300_000\")"
    result, told = sorted(both(service, f"str(await outcome({sent}))[:200]"))
    assert result == "x" * 200
    assert "TaskFailed" in told
    assert "too large to be passed on" in told


def test_who_follows_a_task_whose_sender_dies_is_told_and_the_task_runs(service: Service) -> None:
    held = service.occupy(2)
    first, second = two_workers(service)
    with first, second:
        victim = first.ask(f"[{ONE}.send('ran(1)'), os.getpid()][1]")
        second.post(f"await outcome({ONE}.send('ran(2)'))")
        pause(0.05)  # it follows, or does not yet: both must end
        service.kill(victim)
        answer = second.read_answer(10)
        assert answer["error"] == "TaskFailed"
        assert "whoever sent it is gone: it runs" in answer["text"]
        # Now it is known at once.
        assert "is gone" in second.ask(f"await outcome({ONE}.send('ran(3)'))")["text"]
    held.unlink()
    service.wait_for(lambda: service.runs() == {1: 1}, 10)
    service.wait_for(lambda: is_over(service), 10)
    assert service.ask(f"await {ONE}.send('4')") == 4


def test_a_task_worker_sends_by_key_as_a_worker_does(service: Service) -> None:
    with service.connect() as client:
        sent = "work.options(key='t', delay=600).send('5')"
        first = client.ask(f"conn.state.update(ref={sent}) or conn.state['ref'].id")
        assert service.task("work.options(key='t').send('6').id") == first
        assert service.task("work.options(key='t').send('6').cancel()") is True
        assert client.ask("await outcome(conn.state['ref'])")["error"] == "TaskCancelled"
