"""send_message: from any process to any, by id; refused where the sender can know it."""

from __future__ import annotations

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service

IDS = range(4)  # two workers, two task workers


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


def from_worker(service: Service, seat: int, expression: str) -> object:
    """Evaluate in the worker of that seat: connect until it is the one that accepts."""
    for _ in range(200):
        with service.connect() as client:
            if client.ask("server.worker_id") == seat:
                return client.ask(expression)
    raise AssertionError(f"worker {seat} accepted none of 200 connections")


def send(service: Service, source: int, target: int) -> None:
    call = f"server.send_message(['from', {source}], {target})"
    if source < 2:
        assert from_worker(service, source, call) is None
    else:
        assert service.ask(f"await server.task({call!r}, {source})") is None


@pytest.mark.short
def test_messages_pass_between_every_two_processes(service: Service) -> None:
    for source in IDS:
        for target in IDS:
            send(service, source, target)
    expected = [[target, source, ["from", source]] for source in IDS for target in IDS]
    service.wait_for(lambda: len(service.ledger("message")) == 16, 5)
    assert sorted(service.ledger("message")) == sorted(expected)


def test_message_to_oneself_comes_after_the_handler(service: Service) -> None:
    with service.connect() as client:
        seat = client.ask("server.worker_id")
        client.ask(f"[server.send_message('me', {seat}), note('handler')]")
        service.wait_for(lambda: service.ledger("message"), 5)
    kinds = service.ledger_path.read_text().splitlines()
    assert "handler" in kinds[0]
    assert "message" in kinds[1]


def test_unknown_id_is_an_error_at_the_sender(service: Service) -> None:
    for target in (-1, 4, 2**31):
        assert "error" in service.ask(f"attempt(server.send_message, 'x', {target})"), target
    assert service.ask("VERSION") == "1"


def test_sender_without_a_handler_is_told(make: Serve) -> None:
    service = make()
    service.edit("@server.on_pipe_message\n", "")
    service.start()
    assert "pipe_message" in service.ask("attempt(server.send_message, 'x', 1)")["text"]


def test_message_that_is_too_big_is_refused(service: Service) -> None:
    answer = service.ask("attempt(server.send_message, 'x' * 300_000, 1)")
    assert answer["error"] == "MessageTooBig"


def test_large_message_arrives_whole(service: Service) -> None:
    service.ask("server.send_message('x' * 150_000, 3)")
    service.wait_for(lambda: service.ledger("message"), 5)
    assert service.ledger("message")[0][2] == "x" * 150_000


def test_other_data_is_a_type_error_at_the_call(service: Service) -> None:
    assert service.ask("attempt(server.send_message, object(), 1)")["error"] == "TypeError"


def test_process_that_does_not_read_fills_its_inbox(service: Service) -> None:
    with service.connect() as client:
        client.post("await server.task('note(\"busy\") or blocking(2)', 2)")
        service.wait_for(lambda: service.ledger("busy"), 5)
        question = "[attempt(server.send_message, n, 2) for n in range(2000)]"
        answers = service.ask(question)
        accepted = [n for n, answer in enumerate(answers) if answer is None]
        assert {a["error"] for a in answers if a is not None} == {"InboxFull"}
        assert len(accepted) < 2000
    service.wait_for(lambda: len(service.ledger("message")) == len(accepted), 10)
    assert [row[2] for row in service.ledger("message")] == accepted


def test_messages_keep_their_order(service: Service) -> None:
    service.ask("await trickle(300, 3)")
    service.wait_for(lambda: len(service.ledger("message")) == 300, 10)
    assert [row[2] for row in service.ledger("message")] == list(range(300))


def test_task_worker_messages_every_process_and_finishes(service: Service) -> None:
    # The seed's sendMessage example.
    assert service.task("[server.send_message(n, n) for n in range(4)] and 'done'") == "done"
    service.wait_for(lambda: len(service.ledger("message")) == 4, 5)
    assert sorted(row[2] for row in service.ledger("message")) == [0, 1, 2, 3]


def test_handler_that_raises_is_logged_and_the_process_stays(make: Serve) -> None:
    service = make()
    service.edit('note("message", server', 'fail("bad message") or note("message", server')
    service.start()
    before = service.seats()
    service.ask("[server.send_message('x', n) for n in range(4)]")
    service.wait_for(lambda: service.log().count("ValueError: bad message") >= 4, 5)
    assert service.seats() == before


def test_messages_reach_the_new_generation_after_a_reload(service: Service) -> None:
    service.reload()
    for target in IDS:
        send(service, 0, target)
    service.wait_for(lambda: len(service.ledger("message")) == 4, 5)
