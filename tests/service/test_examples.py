"""Every app in examples/ does what its first lines say, started as a reader would start it."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.service.client import Client
from tests.service.conftest import Serve
from tests.service.daemon import REPOSITORY, Service

EXAMPLES = REPOSITORY / "examples"


def example(serve: Serve, name: str, **config: object) -> Service:
    """The service of examples/NAME, in a folder of its own."""
    service = serve(str(EXAMPLES / name), **config)
    assert service.app_path.read_bytes() == (EXAMPLES / name).read_bytes()
    return service


def told(service: Service, said: bytes, lines: int) -> list[str]:
    """Say something on a new connection and read that many lines."""
    with service.connect() as client:
        client.send(said)
        return [client.read_line().decode() for _ in range(lines)]


def test_no_example_is_left_out() -> None:
    tested = {path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' in source()}
    assert tested == {path.name for path in EXAMPLES.glob("*.py")}


def source() -> str:
    return Path(__file__).read_text()


@pytest.mark.short
def test_hello_answers_and_reloads_on_save(serve: Serve) -> None:
    service = example(serve, "hello.py", watch_file=True)
    assert told(service, b"how are you", 2) == [
        "hello world client",
        "a task worker counted 3 words",
    ]
    service.edit("hello world client", "hello again")
    service.wait_for(lambda: told(service, b"x", 1) == ["hello again"], 10, "the new answer")


def test_hello_is_the_app_of_the_readme_and_of_the_config() -> None:
    assert (EXAMPLES / "hello.py").read_text() in (REPOSITORY / "README.md").read_text()
    assert "\napp: examples/hello.py:server\n" in (REPOSITORY / "config/procd.yaml").read_text()


def test_hello_takes_a_message_that_is_larger_than_a_slot(serve: Serve) -> None:
    service = example(serve, "hello.py")
    assert told(service, b"word " * 10_000, 2)[1] == "a task worker counted 100 words"


def test_echo_gives_a_slow_reader_everything_and_serves_others(serve: Serve) -> None:
    service = example(serve, "echo.py", worker_num=1)
    sent = bytes(range(256)) * 65536  # 16 MiB: more than the kernel and send_buffer_bytes hold
    with service.connect() as slow, service.connect() as other:
        slow.socket.settimeout(30)
        sender = threading.Thread(target=slow.send, args=(sent,))
        sender.start()
        for n in range(20):
            other.send(b"%d\n" % n)
            assert other.read_line(5) == b"%d" % n
        received = bytearray()
        while len(received) < len(sent):
            piece = slow.socket.recv(1 << 16)
            assert piece, f"closed after {len(received)} bytes"
            received += piece
        sender.join(30)
    assert received == sent


def test_tasks_are_charged_once_though_their_process_dies(serve: Serve) -> None:
    service = example(serve, "tasks.py", env={"CHARGES": "charges.sqlite"})
    assert told(service, b"alice", 1) == ["say: NAME CENTS"]
    address = service.address
    clients = [Client(address) for _ in range(40)]
    for n, client in enumerate(clients):
        client.send(b"alice %d" % n)
        assert client.read_line().startswith(b"accepted ")
        if n % 10 == 5:
            service.kill(service.pids("task")[0])
            service.wait_for(lambda: len(service.pids("task")) == 2, 10)
    for n, client in enumerate(clients):
        assert client.read_line(20) == b"charged alice %d" % n
        client.socket.close()
    with closing(sqlite3.connect(service.root / "charges.sqlite")) as db:
        rows = db.execute("select cents, count(*) from charges group by cents").fetchall()
    assert sorted(rows) == [(n, 1) for n in range(40)]


def test_busy_says_so_while_there_is_no_room_and_waits_where_asked(serve: Serve) -> None:
    service = example(serve, "busy.py", task_slots=64, worker_num=1)
    address = service.address
    clients = [Client(address) for _ in range(80)]
    for client in clients:
        client.send(b"now")
    answers = [client.read_line().decode() for client in clients]
    assert set(answers) == {"busy", "done: a report"}
    assert answers.count("done: a report") >= 64
    for client in clients[:8]:
        client.send(b"wait")
    assert {client.read_line() for client in clients[:8]} == {b"done: a report"}
    for client in clients:
        client.send(b"wait")
    patient = [client.read_line() for client in clients]
    assert set(patient) == {b"done: a report", b"not in time"}
    for client in clients:
        client.socket.close()


def test_pipe_message_reaches_every_process(serve: Serve) -> None:
    service = example(serve, "pipe_message.py", worker_num=2, task_worker_num=3)
    assert told(service, b"go", 1) == ["5 processes reached"]
    for worker_id in range(5):
        line = f"worker {worker_id} got from"
        service.wait_for(lambda line=line: line in service.log(), 5, line)  # type: ignore[misc]


def test_lines_keeps_state_and_takes_half_lines(serve: Serve) -> None:
    service = example(serve, "lines.py")
    with service.connect() as client:
        assert client.read_line() == b"add N, sum, quit"
        client.send(b"add 2\nad")
        client.send(b"d 40\nsum\nfly\n")
        assert [client.read_line(), client.read_line()] == [b"42", b"what?"]
        client.send(b"quit\n")
        assert client.read_line() == b"bye"
        assert client.is_closed(5)
    with service.connect() as other:
        other.read_line()
        other.send(b"sum\n" + b"x" * 2000)
        assert [other.read_line(), other.read_line()] == [b"0", b"too long"]
        assert other.is_closed(5)


def test_chat_reaches_everybody_before_and_after_a_reload(serve: Serve) -> None:
    service = example(serve, "chat.py", max_conn=2)  # two of them are in the other worker
    clients = [service.connect() for _ in range(4)]
    assert [client.read_line() for client in clients] == [b"welcome"] * 4
    for generation in range(1, 3):
        clients[0].send(b"%d\n" % generation)
        assert [client.read_line() for client in clients] == [b"%d" % generation] * 4
        service.reload()
        service.wait_for(lambda: not service.processes("worker", "draining"), 10)
    for client in clients:
        client.socket.close()


def test_seed_answers_at_once_and_leaves_the_work_to_task_workers(serve: Serve) -> None:
    service = example(serve, "seed.py", task_worker_num=3)
    assert told(service, b"hello world", 1) == ["hello world client "]
    service.wait_for(lambda: "got: hello worker task" in service.log(), 5)


def test_the_house_in_the_readme_is_the_one_that_stands() -> None:
    text = (REPOSITORY / "README.md").read_text()
    drawing = text.partition("<!-- house")[2].partition("<!-- end of house -->")[0]
    drawn, folders = set(), [""]
    for line in drawing.splitlines():
        name = line.split()[0] if line.startswith("    ") and line.strip() else ""
        if name.endswith(("/", ".py")):
            depth = (len(line) - len(line.lstrip()) - 4) // 2
            folders[depth:] = [folders[depth - 1] + name if depth else name]
            drawn |= {folders[depth]} if name.endswith(".py") else set()
    files = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "procd").rglob("*.py")}
    assert drawn == {path for path in files if not path.endswith(("__init__.py", "__main__.py"))}
