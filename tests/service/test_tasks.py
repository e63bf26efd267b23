"""Tasks: dispatch, results, failures, names; queues that are full say so."""

from __future__ import annotations

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service

ROUND_TRIPS = [
    "None",
    "True",
    "-2**63",
    "1.5",
    "'grüße'",
    "b'\\\\x00\\\\xff'",
    "[1, [2, {}]]",
    "{'a': {1: None}}",
    "__import__('datetime').datetime(2024, 2, 29, 12, tzinfo=__import__('datetime').UTC)",
]


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


@pytest.mark.short
def test_task_runs_in_a_task_worker_and_its_result_is_awaited(service: Service) -> None:
    answer = service.task("who()")
    assert answer["is_task_worker"] is True
    assert answer["id"] in {2, 3}
    assert answer["pid"] in service.pids("task")


def test_counts_of_status_follow_the_tasks(serve: Serve) -> None:
    service = serve()
    for _ in range(3):
        service.task("1")
    service.task("fail('on purpose')")
    tasks = service.status()["tasks"]
    assert (tasks["done"], tasks["failed"], tasks["dead"]) == (3, 1, 0)
    assert (tasks["queued"], tasks["running"]) == (0, 0)


def test_every_kind_of_value_travels_both_ways(make: Serve) -> None:
    # The data goes out and comes back as the result; compared where it was sent.
    service = make()
    service.edit('eval(str(task.data), {**GLOBALS, "task": task})', "task.data")
    service.start()
    with service.connect() as client:
        for value in ROUND_TRIPS:
            kinds = client.ask(f"[type(x).__name__ for x in [{value}, await server.task({value})]]")
            assert kinds[0] == kinds[1], value
            assert client.ask(f"await server.task({value}) == {value}") is True, value
        # MessagePack knows one kind of sequence.
        assert client.ask("await server.task((1, ('a', ())))") == [1, ["a", []]]


def test_other_values_raise_type_error_at_the_call(service: Service) -> None:
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 5)
    for value in ("object()", "{1, 2}", "lambda: 0", "[1, object()]"):
        assert service.ask(f"server.task({value})")["error"] == "TypeError", value
    assert service.status()["tasks"]["queued"] == 0


def test_result_that_cannot_travel_fails_the_task(service: Service) -> None:
    answer = service.task("object()")
    assert answer["error"] == "TaskFailed"
    assert "TypeError" in answer["text"]
    assert service.task("1") == 1


@pytest.mark.short
def test_failed_task_raises_with_the_handlers_text(service: Service) -> None:
    answer = service.task("fail('no such picture')")
    assert answer["error"] == "TaskFailed"
    assert "no such picture" in answer["text"]
    assert "ValueError" in answer["text"]


def test_failed_task_that_nobody_awaits_is_logged_once(service: Service) -> None:
    service.ask('server.task(\'fail("nobody awaits" + " this")\').id')
    service.wait_for(lambda: "nobody awaits this" in service.log(), 5)
    service.task("1")
    service.wait_for(lambda: service.log().count("ValueError: nobody awaits this") == 1, 5)


def on_one_worker(service: Service, dispatch: str, then: str) -> object:
    """Ask both on one connection, so in one worker; the second until it is true."""
    with service.connect() as client:
        client.ask(dispatch)
        return service.wait_for(lambda: client.ask(then), 5)


def test_on_finish_is_called_though_nobody_awaits(service: Service) -> None:
    assert on_one_worker(
        service,
        "conn.state.update(ref=server.task('6 * 7')) or conn.state['ref'].id",
        "finished[-1:] == [(conn.state['ref'].id, 42)]",
    )


def test_on_finish_is_called_also_when_somebody_awaits(service: Service) -> None:
    assert on_one_worker(service, "await server.task('6 * 9')", "finished[-1][1] == 54")


def test_on_finish_is_not_called_for_a_failed_task(service: Service) -> None:
    with service.connect() as client:
        client.ask("finished.clear()")
        assert client.ask("await server.task('fail(1)')")["error"] == "TaskFailed"
        assert client.ask("await server.task('2')") == 2
        assert [result for _, result in client.ask("finished")] == [2]


def test_first_finish_is_the_result(service: Service) -> None:
    assert service.task("task.finish('first') or task.finish('second') or 'third'") == "first"


def test_task_knows_its_id_attempt_and_source(service: Service) -> None:
    with service.connect() as client:
        source = client.ask("server.worker_id")
        question = "await server.task('[task.id, task.attempt, task.src_worker_id, task.name]')"
        task_id, attempt, src, name = client.ask(question)
        assert isinstance(task_id, int)
        assert 0 <= task_id < 2**63
        assert (attempt, src, name) == (1, source, None)
        assert client.ask("finished[-1][0]") == task_id


def test_task_for_one_task_worker_runs_there(service: Service) -> None:
    for seat in [2, 3] * 4:
        assert service.ask(f"await server.task('who()', dst_worker_id={seat})")["id"] == seat


def test_task_for_no_task_worker_is_an_error_at_the_sender(service: Service) -> None:
    for seat in (0, 1, 4, -1):
        assert "error" in service.ask(f"attempt(server.task, '1', {seat})"), seat
    assert service.task("1") == 1


def test_task_for_one_task_worker_waits_until_it_is_free(service: Service) -> None:
    with service.connect() as first, service.connect() as second:
        first.post("await server.task('note(\"begun\") or blocking(0.5)', 2)")
        service.wait_for(lambda: service.ledger("begun"), 5)
        second.post("await server.task('who()', 2)")
        assert service.task("who()")["id"] == 3
        assert second.read_answer()["id"] == 2


def test_full_task_queue_says_so_and_loses_nothing(serve: Serve) -> None:
    service = serve(task_slots=64)
    service.ask("[server.task('blocking(0.5)', n).id for n in (2, 3)]")
    answer = service.ask("fill('ran(task.id)', 1000)")
    assert answer["error"] == "TaskQueueFull"
    assert 0 < answer["accepted"] <= 64
    service.wait_for(lambda: len(service.runs()) == answer["accepted"], 10)
    assert set(service.runs().values()) == {1}
    assert service.status()["tasks"]["refused"] >= 1


def test_task_wait_waits_for_room(serve: Serve) -> None:
    service = serve(task_slots=64)
    service.ask("[server.task('blocking(0.5)', n).id for n in (2, 3)]")
    with service.connect() as client:
        assert client.ask("fill('1', 1000)")["error"] == "TaskQueueFull"
        assert client.ask("await server.task_wait('6 * 7', timeout=10)") == 42


def test_task_wait_gives_up_at_its_timeout(serve: Serve) -> None:
    service = serve()
    answer = service.ask("await server.task_wait('blocking(2)', timeout=0.2)")
    assert answer["error"] == "TaskTimeout"


def test_task_ids_are_not_used_twice_over_a_restart(service: Service) -> None:
    question = "[server.task('1').id for _ in range(100)]"
    before = service.ask(question)
    service.ok("restart")
    after = service.ask(question)
    assert len(set(before) | set(after)) == 200


@pytest.mark.short
def test_named_task_called_plainly_runs_here_and_sent_runs_there(service: Service) -> None:
    with service.connect() as client:
        here = client.ask("os.getpid()")
        assert client.ask("add(2, b=3)") == {"sum": 5, "pid": here}
        sent = client.ask("await add.send(2, b=3)")
        assert sent["sum"] == 5
        assert sent["pid"] in service.pids("task")
        assert client.ask("await add.send(2)")["sum"] == 3


def test_named_task_with_wrong_arguments_fails_with_their_error(service: Service) -> None:
    answer = service.ask("await outcome(add.send('a', 'b', 'c'))")
    assert answer["error"] in {"TaskFailed", "TypeError"}
    assert service.ask("await add.send(1)")["sum"] == 2


def test_named_task_of_another_module_needs_no_server(make: Serve) -> None:
    service = make()
    (service.root / "pictures.py").write_text(
        "from procd import task\n@task\ndef resize(path, width): return [path, width]\n"
    )
    service.edit("import ast\n", "import ast\nimport pictures\n")
    service.start()
    assert service.ask("await pictures.resize.send('a.png', width=100)") == ["a.png", 100]
    assert service.ask("pictures.resize('a.png', 100)") == ["a.png", 100]


def test_async_task_may_await_a_sub_task(serve: Serve) -> None:
    service = serve(env={"ASYNC_TASKS": "1"})
    assert service.task("await server.task('6 * 7') + 1") == 43
    assert service.task("await slowly(0.05)")["is_task_worker"] is True


def test_sync_task_may_send_a_sub_task(service: Service) -> None:
    service.task("server.task('ran(7)').id")
    service.wait_for(lambda: service.runs() == {7: 1}, 5)


def test_tasks_spread_over_the_task_workers(service: Service) -> None:
    with service.connect() as client:
        question = "await asyncio.gather(*[server.task('blocking(0.05)') for _ in range(12)])"
        answers = client.ask(question)
    assert {answer["id"] for answer in answers} == {2, 3}


def test_service_without_task_workers_serves(serve: Serve) -> None:
    service = serve(task_worker_num=0)
    assert service.ask("VERSION") == "1"
    assert service.pids("task") == []
