"""`procd queue`: what a person does to message queues from a shell, without any config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from procd.cli.queue import queue as command_line
from procd.ipc import Queue, ftok
from procd.ipc.foreign import php
from procd.ipc.keys import parse_key
from tests.kernel import queues
from tests.kernel.forked import as_nobody, needs_root, outcome
from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import REPOSITORY, Service

Done = subprocess.CompletedProcess[bytes]


def run(*words: str, stdin: bytes = b"") -> Done:
    """Run `procd queue WORDS` from a folder without a config."""
    return subprocess.run(
        [sys.executable, "-m", "procd", "queue", *words],
        input=stdin,
        capture_output=True,
        check=False,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
    )


def ok(*words: str, stdin: bytes = b"") -> bytes:
    done = run(*words, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout


def refused(status: int, *words: str) -> str:
    """What a command that must fail says: one line for a person."""
    done = run(*words)
    said = done.stderr.decode()
    assert done.returncode == status, done
    assert "Traceback" not in said
    if status == 1:
        assert said.startswith("procd: ")
        assert said.count("\n") == 1
    return said


@pytest.fixture(name="queue")
def made_queue() -> Iterator[Queue]:
    before = leftovers.queues()
    queue = Queue.create()
    yield queue
    queue.remove()
    assert leftovers.queues() == before


@pytest.fixture(name="key")
def key_of_queue(queue: Queue) -> str:
    return str(queue.key)


# ---------------------------------------------------------------- send and receive


@pytest.mark.short
def test_what_is_sent_is_received(queue: Queue, key: str) -> None:
    ok("send", key, "hello", "--type", "7")
    assert queue.peek() == (b"hello", 7)
    assert ok("receive", key) == b"hello\n"
    assert queue.messages == 0


@pytest.mark.parametrize(
    ("name", "said", "data"),
    [
        ("text", "我", "我".encode()),
        ("raw", "a b", b"a b"),
        ("json", ' {"a": [1, null]} ', b'{"a":[1,null]}'),
        ("msgpack", '{"a": 1}', b"\x81\xa1a\x01"),
        ("php", '{"n": [7, "x"]}', b'a:1:{s:1:"n";a:2:{i:0;i:7;i:1;s:1:"x";}}'),
    ],
)
def test_each_format_goes_both_ways(
    queue: Queue, key: str, name: str, said: str, data: bytes
) -> None:
    ok("send", key, said, "--format", name)
    assert queue.peek()[0] == data
    printed = ok("receive", key, "--format", name)
    if name in ("text", "raw"):
        assert printed.decode().removesuffix("\n") == said
    else:
        assert json.loads(printed) == json.loads(said)


def test_data_comes_from_standard_input_too(queue: Queue, key: str) -> None:
    ok("send", key, stdin=b"two\nlines\n")
    ok("send", key, "--format", "raw", stdin=b"\0\xff\n")
    ok("send", key, "--format", "php", stdin=b"[1]\n")
    assert [data for data, _ in queue.peek_all()] == [b"two\nlines", b"\0\xff\n", b"a:1:{i:0;i:1;}"]
    assert ok("receive", key) == b"two\nlines\n"
    assert ok("receive", key, "--format", "raw") == b"\0\xff\n"


def test_messages_are_chosen_by_type(queue: Queue, key: str) -> None:
    for mtype in (5, 3, 4):
        queue.send(b"%d" % mtype, mtype)
    assert ok("receive", key, "--type", "-4") == b"3\n"
    assert ok("receive", key, "--except", "5") == b"4\n"
    queue.send(b"6", 6)
    assert ok("receive", key, "--count", "2") == b"5\n6\n"
    assert "--type or --except" in refused(2, "receive", key, "--type", "1", "--except", "2")


def test_what_is_of_another_format_is_not_lost(queue: Queue, key: str) -> None:
    queue.send(b"\xff\0no text")
    queue.send(b'O:8:"stdClass":0:{}')
    done = run("receive", key)
    assert (done.returncode, done.stdout) == (1, b"\xff\0no text")
    assert b"byte 0 is no UTF-8; the message was printed as it came" in done.stderr
    done = run("receive", key, "--format", "php", "--json")
    line = json.loads(done.stdout)
    assert (done.returncode, line["base64"]) == (1, "Tzo4OiJzdGRDbGFzcyI6MDp7fQ==")
    assert "an object is refused" in line["error"]


def test_values_that_json_has_not_are_shown_all_the_same(queue: Queue, key: str) -> None:
    queue.send(php.dump({5: b"\xff", b"\xfe": None}), 2)
    assert json.loads(ok("receive", key, "--format", "php", "--json")) == {
        "type": 2,
        "bytes": 28,
        "data": {"5": {"base64": "/w=="}, "\\xfe": None},
    }


def test_an_empty_and_a_full_queue_are_waited_for_as_long_as_said(queue: Queue, key: str) -> None:
    assert "holds no message" in refused(1, "receive", key, "--timeout", "0.01")
    assert "holds no such message" in refused(1, "receive", key, "--timeout", "0", "--except", "1")
    queue.set(bytes_max=3)
    ok("send", key, "123")
    assert "is full" in refused(1, "send", key, "4", "--timeout", "0.01")
    assert "never fit" in refused(1, "send", key, "1234")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("send", "KEY", "{", "--format", "php"), "DATA is not JSON"),
        (("send", "KEY", "word", "--format", "json"), """(a plain string is '"in quotes"')"""),
        (("send", "KEY", "18446744073709551615", "--format", "php"), "64 bits"),
        (("send", "KEY", "x", "--type", "0"), "0 is not in the range"),
        (("send", "KEY", "x", "--format", "xml"), "xml"),
        (("receive", "KEY", "--timeout", "-1"), "-1"),
        (("receive", "seven"), "seven is no key"),
        (("receive", "0"), "key 0 names no queue"),
        (("stat", "0x100000000"), "32 bits"),
        (("stat", "/no/such:a"), "/no/such: No such file or directory"),
        (("stat", "/tmp:ab"), "one letter"),
        (("rm",), "KEY"),
    ],
)
def test_what_cannot_be_meant_is_2_and_says_why(
    queue: Queue, key: str, words: tuple[str, ...], reason: str
) -> None:
    assert reason in refused(2, *(key if word == "KEY" else word for word in words))
    assert queue.messages == 0


def test_a_queue_that_is_not_there_is_1_and_says_so() -> None:
    key = str(queues.free_key())
    for words in (("send", key, "x"), ("receive", key), ("peek", key), ("stat", key), ("rm", key)):
        assert "there is no queue 0x" in refused(1, *words)


# ---------------------------------------------------------------- looking


def test_peek_shows_all_and_takes_nothing(queue: Queue, key: str) -> None:
    assert "holds no such message" in refused(1, "peek", key)
    queue.send(b"first", 9)
    queue.send(b"\xff" * 300, 2)
    queue.send(b"i:7;", 9)
    lines = ok("peek", key).decode().splitlines()
    assert lines[0] == "#0 type 9, 5 bytes: 'first'"
    assert lines[1].startswith("#1 type 2, 300 bytes: b'\\xff")
    assert len(lines[1]) < 300
    assert ok("peek", key, "--type", "9", "--count", "1") == b"#0 type 9, 5 bytes: 'first'\n"
    found = [json.loads(line) for line in ok("peek", key, "--json", "--type", "9").splitlines()]
    assert [line["data"] for line in found] == ["first", "i:7;"]
    assert b"#2 type 9, 4 bytes: 7\n" in ok("peek", key, "--format", "php")
    assert queue.messages == 3


def test_stat_tells_what_the_kernel_knows(queue: Queue, key: str) -> None:
    queue.send(b"12345")
    text = ok("stat", key).decode()
    assert f"bytes     5 of {queue.bytes_max}\n" in text
    assert f" by pid {queue.stat().last_send_pid}\n" in text
    assert "received  never\n" in text
    assert "service   none that runs\n" in text
    found = json.loads(ok("stat", key, "--json"))
    assert (found["messages"], found["mode"], found["service"]) == (1, "0600", None)
    assert found["key_hex"] == f"0x{queue.key:08x}"


def test_a_key_is_written_in_every_way_that_programs_know(tmp_path: Path) -> None:
    path = tmp_path / "a:b"
    path.touch()
    assert parse_key("1963150487") == parse_key("0x75034c97") == 1963150487
    assert parse_key("0xffffffff") == parse_key("4294967295") == parse_key("-1") == -1
    assert parse_key(f"{path}:u") == ftok(path, "u")
    with pytest.raises(ValueError, match="project"):
        parse_key(f"{path}:\0")


# ---------------------------------------------------------------- whose it is


def listed() -> dict[int, dict[str, Any]]:
    return {row["key"]: row for row in json.loads(ok("ls", "--json"))}


def queue_of(service: Service) -> dict[str, Any]:
    """What the list says of the queue that a service owns."""
    found = [row for row in listed().values() if row["service"]]
    (owned,) = [row for row in found if row["service"]["pid"] == service.master]
    return owned


@pytest.mark.short
def test_rm_removes_and_spares_what_a_running_procd_owns(queue: Queue, serve: Serve) -> None:
    service = serve()
    before = leftovers.queues()
    (owned,) = [
        row
        for row in listed().values()
        if row["service"] and row["service"]["pid"] == service.master
    ]
    assert owned["service"]["config"] == str(service.config_path)
    assert listed()[queue.key]["service"] is None
    table = ok("ls").decode()
    assert f"{service.config_path} (pid {service.master})" in table
    assert f"0x{queue.key:08x}" in table
    assert str(service.config_path) in ok("stat", str(owned["key"] & 0xFFFFFFFF)).decode()

    said = refused(1, "rm", str(queue.key), owned["key_hex"])
    assert f"is the task queue of the procd that runs for {service.config_path}" in said
    assert f"`procd -c {service.config_path} stop`" in said
    assert leftovers.queues() == before
    assert service.task("6 * 7") == 42

    ok("rm", str(queue.key), str(queue.key))
    assert leftovers.queues() == before - {queue.id}


def test_a_queue_that_was_made_anew_for_a_service_is_its_own(serve: Serve) -> None:
    service = serve()
    (owned,) = [
        row
        for row in listed().values()
        if row["service"] and row["service"]["pid"] == service.master
    ]
    Queue.open(owned["key"]).remove()
    assert service.task("6 * 7") == 42
    service.wait_for(lambda: listed().get(owned["key"], {}).get("service"), 10)
    assert listed()[owned["key"]]["id"] != owned["id"]


def test_a_queue_that_a_dead_master_left_can_be_removed(serve: Serve) -> None:
    service = serve()
    (owned,) = [
        row
        for row in listed().values()
        if row["service"] and row["service"]["pid"] == service.master
    ]
    service.kill(service.master)
    service.wait_for(lambda: not service.alive(), 10)
    assert listed()[owned["key"]]["service"] is None
    ok("rm", owned["key_hex"])
    service.start()
    assert service.task("6 * 7") == 42


@needs_root
def test_another_users_queue_is_denied_by_name(queue: Queue, key: str) -> None:
    def tried(*words: str) -> str:
        def command() -> str:
            return str(CliRunner().invoke(command_line, words).exception)

        return outcome(as_nobody(command))

    assert queue.stat().messages == 0  # and loads what that user could not, Python being root's
    for words in (("send", key, "x"), ("receive", key), ("peek", key)):
        assert "is not for this user" in tried(*words)
    assert "only be removed by its owner" in tried("rm", key)
    assert tried("stat", key) == repr("None")
    assert queue.messages == 0
