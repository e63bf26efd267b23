"""The programs that procd's users have, unchanged, beside a procd that runs."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procd.ipc import Queue
from procd.ipc.foreign.message import LARGEST_TASK_TYPE
from tests.interop import php
from tests.kernel.queues import free_key
from tests.service.daemon import Service
from tests.service.ingress import SECONDS, page, seen

SEED = Path(__file__).parent / "seed"
LEFT = "swoole.task*"


@pytest.fixture
def start() -> Iterator[Callable[..., Service]]:
    """Start a service that hears PHP under a key of its own."""
    services = []

    def serve(**config: Any) -> Service:
        service = Service("foreign.py", message_queue_key=free_key(), **config)
        services.append(service)
        return service.start()

    yield serve
    for service in services:
        service.close()


def key(service: Service) -> str:
    return str(service.config["message_queue_key"])


def test_the_seeds_swoole_task_sends_text_arrays_and_200_kilobytes(
    start: Callable[..., Service],
) -> None:
    service = start(worker_num=1, task_tmpdir="/tmp")
    before = set(Path("/tmp").glob(LEFT))
    done = subprocess.run(
        ["php", str(SEED / "SwooleTask.php"), key(service)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert done.stdout == "Sending text to msg queue.\n"
    rows = seen(service, 5)
    assert [row[0] for row in rows] == [
        "Hello from PHP!",
        {"n": 7, "list": [1, 2.5, None, "我"]},
        [1, 2, 3],
        "x" * 200 * 1024,
        ["text"] * 3000,
    ]
    assert {row[2] for row in rows} == {1}  # its type is 2: the first task worker of one worker
    assert set(Path("/tmp").glob(LEFT)) - before == set()


@pytest.mark.parametrize("header_bytes", ["12", "40"])
def test_the_client_in_the_examples_is_understood_with_both_headers(
    start: Callable[..., Service], header_bytes: str
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as tmpdir:
        service = start(worker_num=1, task_tmpdir=tmpdir)
        done = php.run("swoole_client.php", key(service), tmpdir, header_bytes, "1")
        assert (done.returncode, done.stdout) == (0, "1\n2\n3\n"), done
        seen(service, 3)
        assert list(Path(tmpdir).iterdir()) == []
        assert page(service)["rejected"] == {}


def test_a_task_for_the_pid_of_a_task_worker_runs_there(start: Callable[..., Service]) -> None:
    """The seed's own way: TaskTait sends the bare value to a pid."""
    service = start(worker_num=1, task_worker_num=3)
    code = """
        $pids = array_slice(file($argv[2], FILE_IGNORE_NEW_LINES), 1);
        $queue = msg_get_queue((int) $argv[1]);
        foreach ($pids as $place => $pid) {
            msg_send($queue, (int) $pid, "for task worker $place");
        }
    """
    php.evaluate(code, key(service), str(service.run_dir / "worker.pid"))
    rows = sorted(seen(service, 3))
    assert [row[:3] for row in rows] == [
        [f"for task worker {place}", "str", place + 1] for place in range(3)
    ]


def test_php_asks_in_an_envelope_and_reads_the_answer(start: Callable[..., Service]) -> None:
    service = start()
    done = php.run("ask.php", key(service), "hello")
    assert (done.returncode, done.stdout) == (0, "result: hello\n"), done
    done = php.run("ask.php", key(service), "fail badly")
    assert done.returncode == 1
    assert "failure: ValueError: badly" in done.stderr


def test_php_reads_a_bare_result_under_the_configured_type(start: Callable[..., Service]) -> None:
    service = start(message_queue_reply_type=LARGEST_TASK_TYPE + 9)
    code = """
        $queue = msg_get_queue((int) $argv[1]);
        msg_send($queue, 1, ['n' => [1, 2]]);
        msg_receive($queue, 4194304 + 9, $type, 8192, $value);
        echo json_encode($value);
    """
    assert php.evaluate(code, key(service)) == '{"n":[1,2]}'


def test_php_that_comes_first_with_mode_0600_makes_a_queue_that_is_taken(
    start: Callable[..., Service],
) -> None:
    service = start()
    service.stop()
    php.evaluate("msg_send(msg_get_queue((int) $argv[1], 0600), 1, 'from before');", key(service))
    service.start()
    assert seen(service, 1)[0][0] == "from before"
    service.stop()
    Queue.open(int(key(service))).remove()  # what PHP made is PHP's to remove


def test_php_that_comes_first_makes_a_queue_that_is_refused() -> None:
    made = free_key()
    php.evaluate("msg_get_queue((int) $argv[1]);", str(made))
    service = Service("foreign.py", message_queue_key=made)
    done = service.run("start")
    Queue.open(made).remove()
    service.destroy()
    assert (done.returncode, "mode 0666" in done.stderr) == (1, True)
