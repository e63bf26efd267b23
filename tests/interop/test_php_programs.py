"""The programs of examples/php talk with each other and with procd.ipc.Queue, in every pairing."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from procd.ipc import Queue, QueueGone, ftok
from procd.ipc.foreign import php as codec
from tests.interop import php
from tests.service import leftovers
from tests.service.daemon import eventually

KEY = 1963150487
ANSWER = "我是子进程发送的消息"


@pytest.mark.parametrize("name", ["parent_child.php", "parent.py"])
def test_parent_and_child_hear_each_other(name: str) -> None:
    done = php.run(name)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["child got: 1234", f"parent got: {ANSWER}"]


def test_a_php_child_answers_a_parent_in_python(queue: Queue) -> None:
    with php.running("child.php", str(queue.key)) as child:
        queue.send(codec.dump({"n": [1, 2.5, None]}), 10)
        data, mtype = queue.receive(11, timeout=php.SECONDS)
        assert (codec.load(data), mtype) == (ANSWER, 11)
        assert json.loads(php.line(child).removeprefix("child got: ")) == {"n": [1, 2.5, None]}


def test_a_python_child_answers_a_parent_in_php(queue: Queue) -> None:
    """The parent as the first page of every tutorial has it, with a type for each way."""
    queue.send(codec.dump(ANSWER), 11)
    printed = php.evaluate(
        """
        $queue = msg_get_queue((int) $argv[1]);
        msg_send($queue, 10, 1234);
        msg_receive($queue, 11, $message_type, 1024, $message);
        echo $message_type, ' ', $message;
        """,
        str(queue.key),
    )
    assert printed == f"11 {ANSWER}"
    assert queue.receive(10, timeout=0) == (b"i:1234;", 10)


@pytest.mark.parametrize("server", ["server.php", "server.py"])
@pytest.mark.parametrize("client", ["client.php", "client.py"])
def test_every_client_is_heard_by_every_server(server: str, client: str) -> None:
    with php.running(server, "2") as process:
        assert php.line(process) == "ready"
        for text in ("this is will  ", 'quotes " and 我'):
            assert php.run(client, text).returncode == 0
            assert json.loads(php.line(process)) == text
    assert process.returncode == 0


@pytest.mark.parametrize("client", ["client.php", "client.py"])
def test_a_client_without_a_server_says_so_and_makes_no_queue(client: str) -> None:
    done = php.run(client, "x")
    assert done.returncode == 1
    assert done.stderr.startswith(f"nobody serves the queue {KEY}: start server.php or server.py")


@pytest.mark.parametrize("server", ["server.php", "server.py"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_ended_takes_its_queue_along(server: str, signum: int) -> None:
    with php.running(server) as process:
        assert php.line(process) == "ready"
        assert len(leftovers.queues()) >= 1
        process.send_signal(signum)
        if server.endswith(".php"):
            # Again and again: PHP goes on waiting if one comes just before msgrcv(2) begins to.
            eventually(lambda: is_over(process, signum), 10)
    with pytest.raises(QueueGone):
        Queue.open(KEY)


def is_over(process: subprocess.Popen[str], signum: int) -> bool:
    process.send_signal(signum)
    return process.poll() is not None


def test_a_python_server_lives_through_a_message_that_is_no_data() -> None:
    with php.running("server.py", "2") as process:
        assert php.line(process) == "ready"
        php.evaluate(f"msg_send(msg_get_queue({KEY}), 10, new stdClass);")
        php.evaluate(f"msg_send(msg_get_queue({KEY}), 10, 'next');")
        assert php.line(process) == '"next"'


def test_a_queue_made_by_php_is_opened_by_python_and_its_mode_is_seen() -> None:
    php.evaluate(f"msg_send(msg_get_queue({KEY}), 3, 'raw', false);")
    queue = Queue.open(KEY)
    assert queue.mode == 0o666  # as PHP makes them, unless it is told better
    assert queue.receive(timeout=0) == (b"raw", 3)
    queue.remove()


def test_types_and_empty_messages_pass_both_ways(queue: Queue) -> None:
    queue.send(b"", 2**40)
    printed = php.evaluate(
        """
        $queue = msg_get_queue((int) $argv[1]);
        msg_receive($queue, 0, $type, 1024, $message, false);
        var_dump($type, $message);
        msg_send($queue, 2 ** 31 + 5, '', false);
        """,
        str(queue.key),
    )
    assert printed == f'int({2**40})\nstring(0) ""\n'
    assert queue.receive(2**31 + 5, timeout=0) == (b"", 2**31 + 5)


def test_ftok_is_that_of_php(tmp_path: object) -> None:
    for path in (str(tmp_path), "/", "/dev/null"):
        assert int(php.evaluate("echo ftok($argv[1], 'u');", path)) == ftok(path, "u")
