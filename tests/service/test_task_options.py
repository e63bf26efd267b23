"""What a task is sent with: retries, delay, priority, ttl, attempts; each as its sender sees it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.service.client import Client
from tests.service.conftest import Serve
from tests.service.daemon import Service, scaled


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


def send(service: Service, options: str, expression: str, seconds: float = 15) -> object:
    """Let a worker send the task `work` with options and await it."""
    return service.ask(f"await work.options({options}).send({expression!r})", seconds)


# ---------------------------------------------------------------- what may be asked for


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ("priority=0", "ValueError", "priority=0: it takes 1 to 9"),
        ("priority='1'", "TypeError", "priority='1': it takes int, 1 to 9"),
        ("retries=-1", "ValueError", "retries=-1: it takes 0 to 1000"),
        ("retries=True", "TypeError", "retries=True: it takes int"),
        ("timeout=0", "ValueError", "timeout=0: it takes at least 0.001"),
        ("delay=float('nan')", "ValueError", "delay=nan: it takes 0 to"),
        ("key=''", "ValueError", "key='': it takes at least one character"),
        ("key=1", "TypeError", "key=1: it takes str"),
        ("delivery='never'", "ValueError", "it takes at_most_once, at_least_once, durable"),
        ("delivery='at_most_once', retries=1", "ValueError", "more than once"),
        ("delay=1, at=2", "ValueError", "delay and at: one of them"),
        ("retry=1", "TypeError", "no option 'retry'; there are retries, "),
        ("at=__import__('datetime').datetime(2030, 1, 1)", "ValueError", "without a time zone"),
    ],
)
def test_an_option_that_cannot_be_is_said_where_it_is_written(
    service: Service, options: str, error: str, text: str
) -> None:
    answer = service.ask(f"work.options({options})")
    assert answer["error"] == error
    assert text in answer["text"]


def test_options_of_the_decorator_and_of_the_call_add_up(make: Serve) -> None:
    service = make()
    service.edit("@task\ndef work(", "@task(retries=1, retry_delay=0.01, priority=2)\ndef work(")
    service.start()
    assert send(service, "retry_delay=0", "tell('ran') or 1 / (task.attempt - 1)") == 1
    assert [row[0] for row in service.ledger("ran")] == [1, 2]


# ---------------------------------------------------------------- retries


def test_a_task_that_raises_is_tried_again_and_the_await_stays_open(service: Service) -> None:
    expression = "tell('ran') or 6 / (task.attempt - 3)"
    assert send(service, "retries=3, retry_delay=0.01", expression) == -6 / 2
    expression = "tell('ran') or 6 / max(0, task.attempt - 3)"
    assert send(service, "retries=3, retry_delay=0.01", expression) == 6
    assert [row[0] for row in service.ledger("ran")] == [1, 1, 2, 3, 4]


def test_the_last_failure_is_the_result_of_a_task_out_of_retries(service: Service) -> None:
    before = service.status()["tasks"]
    answer = send(service, "retries=2, retry_delay=0.01", "fail(f'attempt {task.attempt}')")
    assert isinstance(answer, dict)
    assert answer["error"] == "TaskFailed"
    assert "attempt 3" in answer["text"]
    after = service.status()["tasks"]
    assert after["failed"] - before["failed"] == 1
    assert after["retried"] - before["retried"] == 2


def test_pauses_between_retries_double_up_to_a_limit(service: Service) -> None:
    options = "retries=5, retry_delay=0.1, retry_max_delay=0.4"
    send(service, options, "tell('ran') or fail('again')")
    times = [row[1] for row in service.ledger("ran")]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert len(pauses) == 5
    # Up to half is taken off at random; a busy machine adds to it.
    for pause, least in zip(pauses, (0.05, 0.1, 0.2, 0.2, 0.2), strict=True):
        assert pause >= least


def test_a_retry_waits_in_no_task_workers_way(service: Service) -> None:
    ref = "work.options(retries=1, retry_delay=2).send('fail(1)')"
    with service.connect() as client:
        client.ask(f"conn.state.update(ref={ref})")
        service.wait_for(lambda: service.status()["tasks"]["delayed"] == 1, 5)
        assert service.task("1") == 1
        assert service.status()["tasks"]["running"] == 0
        assert client.ask("await outcome(conn.state['ref'])")["error"] == "TaskFailed"


def test_a_task_that_is_damaged_or_unknown_is_not_tried_again(service: Service) -> None:
    before = service.status()["tasks"]["retried"]
    answer = service.ask(
        "await outcome(__import__('procd').tasks.registry.NamedTask(fail, 'nowhere')"
        ".options(retries=5).send(1))"
    )
    assert "no task 'nowhere'" in answer["text"]
    answer = send(service, "retries=5", "object()")
    assert isinstance(answer, dict)
    assert "TypeError: its result" in answer["text"]
    assert service.status()["tasks"]["retried"] == before


# ---------------------------------------------------------------- delay and at


def test_a_delayed_task_runs_when_it_is_due_and_not_before(service: Service) -> None:
    begun, ran = service.ask(
        "[time.time(), await work.options(delay=0.3).send('time.time()')]",
    )
    assert ran - begun >= 0.3
    begun, ran = service.ask(
        "[time.time(), await work.options(at=time.time() + 0.2).send('time.time()')]",
    )
    assert ran - begun >= 0.19
    assert send(service, "at=1.0", "'long ago'") == "long ago"
    moment = "__import__('datetime').datetime.now(__import__('datetime').UTC)"
    assert send(service, f"at={moment}", "'now'") == "now"


def test_delayed_tasks_run_in_the_order_of_their_times(service: Service) -> None:
    with service.connect() as client:
        client.ask(
            "[work.options(delay=0.5 - n / 50, priority=1).send(f'ran({n})').id for n in range(20)]"
        )
        service.wait_for(lambda: len(service.runs()) == 20, 10)
    # Those of one moment go to two task workers.
    order = [row[0] for row in service.ledger("ran")]
    assert max(abs(place - (19 - number)) for place, number in enumerate(order)) <= 4


# ---------------------------------------------------------------- priority


def test_urgent_tasks_overtake_and_equal_ones_keep_their_order(serve: Serve) -> None:
    count = scaled(20_000)
    service = serve(task_worker_num=1, task_slots=32768)
    held = service.occupy(1)
    # More than the queue holds, so that many wait in the worker.
    service.ask(
        f"[work.options(priority=1 + n % 9).send(f'ran({{n}})').id for n in range({count})] and 0",
        60,
    )
    held.unlink()
    service.wait_for(lambda: len(service.ledger("ran")) == count, 60)
    order = [row[0] for row in service.ledger("ran")]
    for priority in range(9):
        of_one = [number for number in order if number % 9 == priority]
        assert of_one == sorted(of_one)
    half = order[: count // 2]
    assert sum(number % 9 < 3 for number in half) > sum(number % 9 > 5 for number in half)


@pytest.mark.heavy
def test_a_burst_of_mixed_priorities_from_four_workers_keeps_each_ones_order(serve: Serve) -> None:
    count = scaled(25_000)
    service = serve(worker_num=4, task_slots=131_072)
    held = service.occupy(2)
    with one_client_each(service) as clients:
        tell = "note('ran', {}, {}, os.getpid())"
        for pid, client in clients.items():
            client.post(
                f"[work.options(priority=1 + n % 9).send({tell!r}.format({pid}, n)).id"
                f" for n in range({count})] and 0"
            )
        assert [client.read_answer(120) for client in clients.values()] == [0] * 4
        held.unlink()
        service.wait_for(lambda: service.status()["tasks"]["done"] >= 4 * count, 240)
    # What one task worker ran of one sender's tasks of one priority.
    streams: dict[tuple[int, int, int], list[int]] = {}
    for sender, number, runner in service.ledger("ran"):
        streams.setdefault((sender, number % 9, runner), []).append(number)
    assert sum(map(len, streams.values())) == 4 * count
    for numbers in streams.values():
        assert numbers == sorted(numbers)


@contextmanager
def one_client_each(service: Service) -> Iterator[dict[int, Client]]:
    """A connection to each of four workers, by their pids."""
    clients: dict[int, Client] = {}
    with ExitStack() as stack:
        while len(clients) < 4:
            client = stack.enter_context(service.connect())
            clients.setdefault(client.ask("os.getpid()"), client)
        yield clients


def test_what_is_not_urgent_has_its_share_while_urgent_tasks_never_end(serve: Serve) -> None:
    service = serve(task_worker_num=1)
    held = service.occupy(1)
    service.ask("work.options(priority=9).send('ran(-1)').id")
    service.ask("[work.options(priority=1).send(f'ran({n})').id for n in range(200)] and 0")
    held.unlink()
    service.wait_for(lambda: len(service.runs()) == 201, 15)
    order = [row[0] for row in service.ledger("ran")]
    assert 0 < order.index(-1) <= 16


# ---------------------------------------------------------------- ttl and attempts


def test_a_task_whose_ttl_is_over_is_not_begun(service: Service) -> None:
    held = service.occupy(2)
    before = service.status()["tasks"]
    with service.connect() as client:
        ref = "work.options(ttl=0.05).send('ran(1)')"
        client.ask(f"conn.state.update(ref={ref}) or await asyncio.sleep(0.1)")
        held.unlink()
        assert client.ask("await outcome(conn.state['ref'])")["error"] == "TaskExpired"
    assert service.runs() == {}
    after = service.status()["tasks"]
    assert (after["expired"] - before["expired"], after["failed"] - before["failed"]) == (1, 0)
    assert send(service, "ttl=60", "'in time'") == "in time"


def test_max_attempts_of_a_task_goes_before_that_of_the_config(serve: Serve) -> None:
    service = serve(task_max_attempts=2)
    for options, attempts in (("max_attempts=1", 1), ("max_attempts=3", 3), ("", 2)):
        answer = send(service, options, "note('ran', task.attempt) or os._exit(9)", 30)
        assert isinstance(answer, dict)
        assert f"given up after {attempts} attempts" in answer["text"]
        assert [row[0] for row in service.ledger("ran")] == list(range(1, attempts + 1))
        service.ledger_path.unlink()


def test_retries_and_crashes_are_counted_apart(serve: Serve) -> None:
    service = serve(task_max_attempts=2)
    expression = "note('ran', task.attempt) or (os._exit(9) if task.attempt == 3 else fail(1))"
    answer = send(service, "retries=3, retry_delay=0.01", expression, 30)
    assert isinstance(answer, dict)
    assert "ValueError" in answer["text"]
    # Four failures and one death in between.
    assert [row[0] for row in service.ledger("ran")] == [1, 2, 3, 4, 5]


def test_a_task_that_may_run_once_is_not_run_again_after_a_crash(service: Service) -> None:
    answer = send(service, "delivery='at_most_once'", "note('ran', 1) or os._exit(9)")
    assert isinstance(answer, dict)
    assert answer["error"] == "TaskFailed"
    assert "exit status 9" in answer["text"]
    assert "not run again (at_most_once)" in answer["text"]
    assert len(service.ledger("ran")) == 1
    assert send(service, "delivery='at_most_once'", "'fine'") == "fine"


# ---------------------------------------------------------------- progress


def test_progress_reaches_who_sent_the_task(service: Service) -> None:
    steps = "[task.progress({'step': n}) or time.sleep(0.03) for n in range(5)] and 'done'"
    heard = service.ask(f"await heard(work.send({steps!r}))")
    assert heard == [*({"step": n} for n in range(5)), "done"]


def test_progress_is_told_now_and_then_and_the_last_of_it_in_any_case(service: Service) -> None:
    steps = "[task.progress(n) for n in range(20_000)] and 'done'"
    heard = service.ask(f"await heard(work.send({steps!r}))")
    assert heard[-2:] == [19_999, "done"]
    assert heard == [*sorted(heard[:-1]), "done"]
    assert len(heard) < 1000


def test_progress_that_nobody_hears_or_that_is_too_large_harms_nothing(service: Service) -> None:
    assert send(service, "", "task.progress(1) or 'done'") == "done"
    assert service.task("task.progress(1) or 'of on_task'") == "of on_task"
    answer = send(service, "", "task.progress('x' * 10_000)")
    assert isinstance(answer, dict)
    assert "MessageTooBig" in answer["text"]
    assert service.ask("current_task()") is None


def test_refs_can_be_gathered(service: Service) -> None:
    question = "await asyncio.gather(*[work.send(f'{n} * 2') for n in range(50)])"
    assert service.ask(question) == [n * 2 for n in range(50)]
