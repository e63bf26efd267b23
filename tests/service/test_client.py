"""procd.Client: tasks from a program outside of the service, and their results."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd import (
    Client,
    ConnectionLost,
    MessageTooBig,
    NoSuchTask,
    NotRunning,
    ProcdError,
    TaskFailed,
    TaskQueueFull,
    TaskRejected,
    TaskTimeout,
)
from tests.kernel.forked import Say, as_nobody, forked, needs_root, outcome
from tests.service.conftest import Serve
from tests.service.daemon import REPOSITORY, Service

SECONDS = 20.0
MOST = 64 << 20  # task_max_bytes


@pytest.fixture
def client(shared: Service) -> Iterator[Client]:
    with Client(shared.config_path) as client:
        yield client


def hold(service: Service, name: str = "held") -> Path:
    path = service.root / name
    path.touch()
    return path


# ---------------------------------------------------------------- results


@pytest.mark.short
def test_a_named_task_and_one_for_on_task_bring_their_results(client: Client) -> None:
    named = client.send("app.add", 20, b=22)
    plain = client.task("[task.id, task.src_worker_id, task.data[:1]]")
    result = named.result(SECONDS)
    assert isinstance(result, dict)
    assert result["sum"] == 42
    assert plain.result(SECONDS) == [plain.id, -1, "["]
    assert plain.result(0) == plain.result(SECONDS)  # as often as one likes


def test_a_thousand_in_flight_bring_each_its_own_result(client: Client) -> None:
    refs = [client.task(f"{n} + 1") for n in range(1000)]
    assert len({ref.id for ref in refs}) == 1000
    assert [ref.result(SECONDS) for ref in refs] == [n + 1 for n in range(1000)]


def test_results_come_as_they_are_there(client: Client, shared: Service) -> None:
    held = hold(shared)
    slow = client.task(f"hold({str(held)!r})")
    assert [client.task(f"{n}").result(SECONDS) for n in range(50)] == list(range(50))
    with pytest.raises(TaskTimeout):
        slow.result(0.01)
    assert not slow.is_done
    held.unlink()
    assert slow.result(SECONDS) == str(held)


def test_data_and_result_of_the_largest_size_arrive_whole(client: Client) -> None:
    overhead = 5 + 2  # of MessagePack, and the quotes
    text = "y" * (MOST - overhead)
    assert client.task(f'"{text}"').result(60) == text


def test_threads_share_a_client(client: Client) -> None:
    found: dict[int, list[object]] = {}

    def work(number: int) -> None:
        refs = [client.task(f"({number}, {n})") for n in range(100)]
        found[number] = [ref.result(SECONDS) for ref in refs]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert found == {number: [[number, n] for n in range(100)] for number in range(8)}


def test_an_event_loop_awaits_a_thousand_and_turns_meanwhile(shared: Service) -> None:
    held = hold(shared)

    async def main() -> list[object]:
        async with Client(shared.config_path) as client:
            slow = client.task(f"hold({str(held)!r})")
            assert await slow.accepted() > 0
            results = await asyncio.gather(*(client.task(f"{n}") for n in range(1000)))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slow._wait(), 0.01)
            held.unlink()
            assert await slow == await slow == str(held)
            return results

    assert asyncio.run(main()) == list(range(1000))


def test_the_end_of_async_with_waits_until_all_is_accepted(shared: Service) -> None:
    async def main() -> None:
        async with Client(shared.config_path) as client:
            for n in range(200):
                client.task(f"ran({n})")

    asyncio.run(main())
    shared.wait_for(lambda: len(shared.runs()) == 200, SECONDS)


# ---------------------------------------------------------------- what goes wrong, by name


def test_what_a_task_raises_is_raised_where_it_was_sent(client: Client) -> None:
    with pytest.raises(TaskFailed, match="ValueError: not good") as failed:
        client.task("fail('not good')").result(SECONDS)
    assert "in fail" in failed.value.traceback
    for _ in range(2):
        with pytest.raises(NoSuchTask, match=r"no task 'app\.nope'"):
            client.send("app.nope").result(SECONDS)
    with pytest.raises(TypeError, match="a set cannot be sent"):
        client.task({1})


def test_a_failure_that_nobody_asks_for_is_logged(
    client: Client, shared: Service, caplog: pytest.LogCaptureFixture
) -> None:
    client.task("fail('unseen')")
    shared.wait_for(lambda: "ValueError: unseen" in caplog.text, SECONDS)


def test_too_large_is_said_at_once_and_the_limit_may_change(serve: Serve) -> None:
    service = serve(task_max_bytes=100_000)
    with Client(service.config_path) as client:
        with pytest.raises(MessageTooBig, match="100000 are allowed"):
            client.task("'" + "x" * 200_000 + "'")
        service.configure(task_max_bytes=300_000)
        service.reload()
        gate = service.pids("gate")
        assert client.task("len('" + "x" * 200_000 + "')").result(SECONDS) == 200_000
        assert service.pids("gate") == gate


def test_no_room_is_said_and_passes(serve: Serve) -> None:
    service = serve(task_slots=64, task_worker_num=1)
    held = service.occupy(1)
    with Client(service.config_path) as client:
        refs = [client.task("1") for _ in range(63)]
        with pytest.raises(TaskQueueFull, match="task_slots"):
            client.task("1")
        held.unlink()
        assert {ref.result(SECONDS) for ref in refs} == {1}
        assert client.task("2").result(SECONDS) == 2


def test_what_cannot_be_stored_is_rejected_by_name(serve: Serve) -> None:
    service = serve()
    (service.root / "state" / "spool").rmdir()
    with Client(service.config_path) as client:
        with pytest.raises(TaskRejected, match="somebody removed the folder"):
            client.task("'" + "x" * 100_000 + "'")
        assert client.task("1").result(SECONDS) == 1


def test_a_service_that_does_not_run_is_named(make: Serve) -> None:
    service = make()
    with Client(service.config_path) as client:
        with pytest.raises(NotRunning, match=str(service.config_path)):
            client.task("1")

        async def main() -> None:
            async with Client(service.config_path) as other:
                with pytest.raises(NotRunning):
                    await other.task("1")

        asyncio.run(main())
        service.start()
        assert client.task("1").result(SECONDS) == 1
    with pytest.raises(ConnectionLost, match="closed"):
        client.task("1")


def test_who_knocks_while_the_service_starts_is_let_in(make: Serve) -> None:
    service = make()
    service.edit('VERSION = "1"', 'VERSION = "1"\ntime.sleep(1)')
    starting = subprocess.Popen(
        service.argv("start"), env=service.environment(), stdout=subprocess.DEVNULL
    )
    socket = service.run_dir / "ipc" / "gate.sock"
    service.wait_for(socket.exists, SECONDS)
    with Client(service.config_path) as client:
        assert client.task("VERSION").result(SECONDS) == "1"
    assert starting.wait(SECONDS) == 0


# ---------------------------------------------------------------- reload, fork, goodbye


def test_a_reload_is_not_noticed(service: Service) -> None:
    with Client(service.config_path) as client:
        held = hold(service)
        ref = client.task(f"hold({str(held)!r})")
        gate = service.pids("gate")
        service.wait_for(lambda: service.status()["tasks"]["running"] == 1, SECONDS)
        service.edit('VERSION = "1"', 'VERSION = "2"')
        service.reload()
        assert client.task("VERSION").result(SECONDS) == "2"
        held.unlink()
        assert ref.result(SECONDS) == str(held)
        assert service.pids("gate") == gate


def test_a_child_sends_for_itself_and_the_parents_results_are_the_parents(
    client: Client, shared: Service
) -> None:
    held = hold(shared)
    ref = client.task(f"hold({str(held)!r})")

    def body() -> tuple[object, str]:
        try:
            ref.result(SECONDS)
        except ConnectionLost as lost:
            return client.task("6 * 7").result(SECONDS), str(lost)
        return "no error", ""

    assert outcome(body) == str((42, "sent before a fork: its result comes to the parent"))
    held.unlink()
    assert ref.result(SECONDS) == str(held)
    assert client.task("1").result(SECONDS) == 1


def test_a_client_that_is_killed_leaves_its_tasks_running(service: Service) -> None:
    held = service.occupy(2)
    unread = tasks(service)["unread"]

    def body(_: Say) -> None:
        with Client(service.config_path) as client:
            for n in range(100):
                client.task(f"ran({n})")
            os._exit(0)

    with forked(body) as child:
        assert child.line() == ""
    held.unlink()
    service.wait_for(lambda: len(service.runs()) == 100, SECONDS)
    service.wait_for(lambda: tasks(service)["unread"] == unread + 100, SECONDS)


def tasks(service: Service) -> dict[str, int]:
    return dict(service.status()["tasks"])  # type: ignore[arg-type] # as a plain dict: of keys that may come


@needs_root
def test_another_user_is_refused(shared: Service) -> None:
    shared.root.chmod(0o755)

    def body() -> object:
        with Client(shared.config_path) as client:
            return client.task("1").result(SECONDS)

    assert "serves root and the user of the service only" in outcome(as_nobody(body))
    ipc = shared.run_dir / "ipc"
    ipc.chmod(0o711)
    (ipc / "gate.sock").chmod(0o666)
    try:
        assert "this service is not for uid 65534" in outcome(as_nobody(body))
        shared.wait_for(lambda: "gate refused" in shared.log(), 5)
    finally:
        (ipc / "gate.sock").chmod(0o600)
        ipc.chmod(0o700)


@needs_root
def test_the_user_of_the_service_is_let_in(make: Serve) -> None:
    service = make(user="nobody", env={"LEDGER": "/dev/null"})
    service.root.chmod(0o755)
    service.start()

    def body() -> object:
        with Client(service.config_path) as client:
            return client.task("os.geteuid()").result(SECONDS)

    assert outcome(as_nobody(body)) == "65534"
    assert outcome(body) == "65534"


def test_a_program_is_not_slowed_by_what_it_does_not_use() -> None:
    """Importing the client loads neither asyncio nor the service's own rooms."""
    code = "import sys, procd.client.client; print([m for m in sys.modules if 'asyncio' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_refusals_are_errors_of_procd() -> None:
    assert issubclass(NoSuchTask, TaskFailed)
    assert issubclass(ConnectionLost, ProcdError)
