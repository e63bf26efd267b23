"""What cuts a running task short: its timeout, somebody who cancels it; and who is spared."""

from __future__ import annotations

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, scaled

STUCK = "spin()"  # in one call of C, where no Python handler of a signal runs


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


def send(service: Service, options: str, expression: str, seconds: float = 20) -> dict[str, str]:
    """Let a worker send the task `work` with options and await its failure."""
    answer = service.ask(f"await work.options({options}).send({expression!r})", seconds)
    assert isinstance(answer, dict), answer
    return answer


# ---------------------------------------------------------------- timeout


def test_a_task_over_its_timeout_gets_the_error_where_it_stands(service: Service) -> None:
    before = service.pids("task")
    answer = send(service, "timeout=0.1", "time.sleep(20)")
    assert answer["error"] == "TaskTimeout"
    assert "longer than its timeout of 0.1 s" in answer["text"]
    # Also where it computes, and all of it in Python.
    answer = send(service, "timeout=0.1", "[0 for _ in iter(int, 1)]")
    assert answer["error"] == "TaskTimeout"
    assert service.pids("task") == before


def test_a_handler_may_tidy_up_and_still_have_a_result(service: Service) -> None:
    question = "await work.options(timeout=0.1).send('times_out(20, 0.1)')"
    assert service.ask(question) == "tidied up"
    assert [row[0] for row in service.ledger("raised")] == ["TaskTimeout"]
    assert service.task("1") == 1


def test_an_async_task_over_its_timeout_is_cancelled_where_it_awaits(service: Service) -> None:
    before = service.pids("task")
    question = "await work_async.options(timeout=0.1).send('await awaits_out(20)')"
    answer = service.ask(question)
    assert answer["error"] == "TaskTimeout"
    assert [row[0] for row in service.ledger("raised")] == ["CancelledError"]
    assert service.pids("task") == before
    assert service.ask("await work_async.options(timeout=5).send('await slowly(0)')")


def test_a_task_within_its_timeout_is_left_alone_and_so_is_the_next(service: Service) -> None:
    before = service.pids("task")
    question = "[await work.options(timeout=0.3).send('time.sleep(0.01)') for _ in range(20)]"
    assert service.ask(question) == [None] * 20
    # Its time would be up by now.
    assert service.task("blocking(0.4)")["is_task_worker"] is True
    assert service.task("blocking(0.4)")["is_task_worker"] is True
    assert service.pids("task") == before


def test_a_task_stuck_in_c_code_is_killed_and_nothing_else_notices(serve: Serve) -> None:
    service = serve(task_max_attempts=2)
    workers = service.pids("worker")
    with service.connect() as client:
        stuck = f"note('at', 1) or {STUCK}"
        client.post(f"await outcome(work.options(timeout=0.1).send({stuck!r}))")
        service.wait_for(lambda: service.ledger("at"), 5)
        for number in range(50):
            assert service.task(str(number)) == number
        answer = client.read_answer(20)
    assert answer["error"] == "TaskTimeout"
    assert "given up after 2 attempts" in answer["text"]
    assert "longer than its timeout of 0.1 s and did not stop" in answer["text"]
    assert len(service.ledger("at")) == 2
    assert service.pids("worker") == workers
    assert service.status()["tasks"]["dead"] == 1


def test_a_task_without_a_timeout_computes_as_long_as_it_likes(serve: Serve) -> None:
    service = serve(hang_timeout=0.5)
    assert service.task("sum(1 for _ in iter(lambda t=time.time(): time.time() < t + 1.5, False))")


def test_task_timeout_of_the_config_is_the_default(serve: Serve) -> None:
    service = serve(task_timeout=0.2)
    answer = service.task("time.sleep(20)")
    assert answer["error"] == "TaskTimeout"
    assert send(service, "", "time.sleep(20)")["error"] == "TaskTimeout"
    question = "await work.options(timeout=float('inf')).send('time.sleep(0.5)')"
    assert service.ask(question) is None
    service.configure(task_timeout=None)
    service.reload()
    assert service.task("time.sleep(0.5)") is None


def test_a_timeout_counts_as_an_exception_for_retries(service: Service) -> None:
    expression = "tell('ran') or time.sleep(20 if task.attempt == 1 else 0)"
    question = f"await work.options(timeout=0.1, retries=1, retry_delay=0).send({expression!r})"
    assert service.ask(question) is None
    assert [row[0] for row in service.ledger("ran")] == [1, 2]


def test_a_timeout_at_the_very_end_of_a_task_harms_neither_it_nor_the_next(
    service: Service,
) -> None:
    before = service.pids("task")
    rounds, count = scaled(20), 1000
    sleeps = "time.sleep(0.0018 + {} % 8 / 20_000)"
    one = f"outcome(work.options(timeout=0.002).send({sleeps!r}.format(n)))"
    for _ in range(rounds):
        answers = service.ask(f"await asyncio.gather(*[{one} for n in range({count})])", 60)
        late = [answer for answer in answers if answer and answer["error"] == "TaskTimeout"]
        assert late
        assert len(late) + answers.count(None) == count
    # Their loops still run: messages, async tasks, what a plain handler does with asyncio.
    for number in (2, 3):
        question = f"await server.task('asyncio.run(slowly(0))', dst_worker_id={number})"
        assert service.ask(question)["id"] == number
    assert service.ask("(await work_async.send('await slowly(0.01)'))['is_task_worker']") is True
    assert service.pids("task") == before


# ---------------------------------------------------------------- cancel


def test_a_queued_task_that_is_cancelled_never_runs(service: Service) -> None:
    held = service.occupy(2)
    before = service.status()["tasks"]["cancelled"]
    with service.connect() as client:
        client.ask("conn.state.update(ref=work.send('ran(1)'))")
        assert client.ask("conn.state['ref'].cancel()") is True
        # Its sender is told at once, though no task worker is free.
        assert client.ask("await outcome(conn.state['ref'])")["error"] == "TaskCancelled"
        assert client.ask("conn.state['ref'].cancel()") is False
        held.unlink()
        assert client.ask("await work.send('2')") == 2
    assert service.runs() == {}
    assert service.status()["tasks"]["cancelled"] == before + 1


def test_a_delayed_task_that_is_cancelled_never_runs(service: Service) -> None:
    with service.connect() as client:
        client.ask("conn.state.update(ref=work.options(delay=0.3).send('ran(1)'))")
        client.ask("conn.state['ref'].cancel()")
        assert client.ask("await outcome(conn.state['ref'])")["error"] == "TaskCancelled"
        assert client.ask("await work.options(delay=0.4).send('2')") == 2
    assert service.runs() == {}
    assert service.status()["tasks"]["delayed"] == 0


@pytest.mark.parametrize("by", ["conn.state['ref'].cancel()", "server.cancel_task({})"])
def test_a_running_task_is_cut_short_by_whoever_cancels_it(service: Service, by: str) -> None:
    before = service.pids("task")
    with service.connect() as client, service.connect() as other:
        task_id = client.ask(
            "conn.state.update(ref=work.send('times_out(20, 0)')) or conn.state['ref'].id"
        )
        service.wait_for(lambda: service.status()["tasks"]["running"] == 1, 5)
        asks = client if "conn" in by else other
        assert asks.ask(by.format(task_id)) is True
        assert client.ask("await outcome(conn.state['ref'])") == "tidied up"
        client.ask("conn.state.update(ref=work.send('time.sleep(20)'))")
        service.wait_for(lambda: service.status()["tasks"]["running"] == 1, 5)
        client.ask("conn.state['ref'].cancel()")
        assert client.ask("await outcome(conn.state['ref'])")["error"] == "TaskCancelled"
    assert [row[0] for row in service.ledger("raised")] == ["TaskCancelled"]
    assert service.pids("task") == before


def test_a_running_async_task_is_cut_short(service: Service) -> None:
    before = service.pids("task")
    with service.connect() as client:
        client.ask("conn.state.update(ref=work_async.send('await awaits_out(20)'))")
        service.wait_for(lambda: service.status()["tasks"]["running"] == 1, 5)
        client.ask("conn.state['ref'].cancel()")
        assert client.ask("await outcome(conn.state['ref'])")["error"] == "TaskCancelled"
    assert service.pids("task") == before


def test_a_cancelled_task_that_does_not_stop_has_its_process_killed(serve: Serve) -> None:
    service = serve()
    before = service.pids("task")
    with service.connect() as client:
        stuck = f"note('at') or {STUCK}"
        client.ask(f"conn.state.update(ref=work.send({stuck!r}))")
        service.wait_for(service.ledger_path.exists, 5)
        client.ask("conn.state['ref'].cancel()")
        answer = client.ask("await outcome(conn.state['ref'])", 20)
    assert answer["error"] == "TaskCancelled"
    assert len(set(service.pids("task")) & set(before)) <= 1
    tasks = service.status()["tasks"]
    assert (tasks["cancelled"], tasks["dead"], tasks["retried"]) == (1, 0, 0)
    assert service.ledger_path.read_text().count("at") == 1


def test_cancelling_what_is_no_task_does_nothing(service: Service) -> None:
    for number in (0, 1, 2**62, 2**63 - 1):
        assert service.ask(f"server.cancel_task({number})") is False
    assert service.ask("await outcome(work.send('1'))") == 1


def test_who_is_cancelled_while_he_awaits_leaves_the_task_alone(service: Service) -> None:
    question = "await outcome(asyncio.wait_for(work.send('blocking(0.3) and ran(1)'), 0.05))"
    assert service.ask(question)["error"] == "TimeoutError"
    service.wait_for(lambda: service.runs() == {1: 1}, 5)


# ---------------------------------------------------------------- recycling


def test_task_workers_are_recycled_one_at_a_time_and_replaced_first(serve: Serve) -> None:
    service = serve(task_worker_num=3, task_max_request=20)
    first = set(service.pids("task"))
    with service.connect() as client:
        for _ in range(20):
            client.ask("await asyncio.gather(*[work.send('1') for _ in range(20)])")
    service.wait_for(lambda: not first & set(service.pids("task")), 10)
    service.wait_for(lambda: len(service.pids("task")) == 3, 10)
    log = service.log()
    assert "task_max_request" in log
    assert "died" not in log


def test_a_task_worker_that_has_grown_is_replaced(serve: Serve) -> None:
    service = serve(task_worker_num=1, task_max_rss="150M")
    (before,) = service.pids("task")
    assert service.task("len(bytes(1))") == 1
    assert service.pids("task") == [before]
    service.task("GLOBALS.update(held=b'x' * 200_000_000) or 1")
    service.wait_for(lambda: service.pids("task") not in ([before], []), 10)
    service.wait_for(lambda: "why=task_max_rss" in service.log(), 5)
    assert service.task("1") == 1
