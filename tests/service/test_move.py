"""Open connections move to who stays: at a reload, a recycling, a scale-down."""

from __future__ import annotations

from functools import partial

import pytest

from bench.steady import Steady
from tests.service.conftest import Serve
from tests.service.daemon import REPOSITORY, scaled
from tests.service.moving import ask, clients, draining, served_by, wait_until_moved, who


@pytest.mark.short
def test_kept_connection_is_on_the_new_code_after_each_of_five_reloads(serve: Serve) -> None:
    service = serve("moving.py")
    with service.connect() as client:
        first = ask(client, "id")
        for version in range(2, 7):
            service.edit(f'VERSION = "{version - 1}"', f'VERSION = "{version}"')
            service.reload()
            wait_until_moved(service)
            generation, _, code = who(client)
            assert (generation, code) == (version, str(version))
            assert ask(client, "id") == first
        assert ask(client, "seen") == str(1 + 2 * 5 + 1)
        assert ask(client, "calls") == ""  # neither on_connect nor on_close, here


def test_half_a_line_is_completed_after_the_move(serve: Serve) -> None:
    service = serve("moving.py")
    with service.connect() as client:
        client.send(b"1\nse")
        client.read_line()
        service.reload()
        wait_until_moved(service)
        client.send(b"en\n")
        line = client.read_line()
        assert line.startswith(b"2 ")
        assert served_by(line)[0] == 2


def test_unix_connection_moves_as_well(serve: Serve) -> None:
    service = serve("moving.py", listen=["unix://socket"])
    with service.connect(str(service.root / "socket")) as client:
        assert who(client)[0] == 1
        service.reload()
        wait_until_moved(service)
        assert who(client)[0] == 2


def test_connection_that_the_app_holds_drains_and_the_log_says_why(make: Serve) -> None:
    service = make("moving.py", max_wait_time=2)
    service.extra_environment["HOLD"] = "1"
    service.start()
    with service.connect() as client:
        assert who(client)[0] == 1
        service.reload()
        service.wait_for(lambda: "connections stay" in service.log(), 5)
        assert who(client)[0] == 1
        service.wait_for(
            lambda: (
                "connections stay count=1 why='the app holds them' one=127.0.0.1:" in service.log()
            ),
            5,
        )
        assert client.is_closed(5)


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("set", "why='conn.state cannot be sent' one='127.0.0.1:{} data['odd']: a set"),
        ("tuple", "why='conn.state would come back changed' one='127.0.0.1:{} state['odd']: tuple"),
    ],
)
def test_state_that_cannot_move_stays_and_the_log_says_which(
    serve: Serve, word: str, why: str
) -> None:
    service = serve("moving.py", max_wait_time=2)
    with service.connect() as client:
        assert ask(client, word) == word
        service.reload()
        service.wait_for(lambda: "connections stay" in service.log(), 5)
        text = service.log().replace("\\", "").replace('"', "'")
        assert why.format(client.socket.getsockname()[1]) in text
        assert who(client)[0] == 1


def test_app_with_on_resume_moves_although_it_holds_connections(make: Serve) -> None:
    service = make("moving.py")
    service.extra_environment |= {"HOLD": "1", "RESUME": "1"}
    service.start()
    with service.connect() as client:
        assert ask(client, "calls") == "connect"
        service.reload()
        client.post("calls")
        client.post("calls")
        wait_until_moved(service)
        last = [client.read_line() for _ in range(2)][-1]
        assert last.split() == [b"resume", b"2/%d/1" % served_by(last)[1]]


def test_on_reload_drain_leaves_connections_where_they_are(serve: Serve) -> None:
    service = serve("moving.py", max_wait_time=2, on_reload="drain")
    with service.connect() as client:
        assert who(client)[0] == 1
        service.reload()
        assert who(client)[0] == 1
        assert client.is_closed(2 + 1.5)
    assert "connections moved" not in service.log()


def test_stop_moves_nothing(serve: Serve) -> None:
    service = serve("moving.py")
    with clients(service, 20) as many:
        service.stop()
        assert all(client.is_closed(1) for client in many)
    assert "connections moved" not in service.log()


def test_busy_connection_moves_when_its_handler_has_returned(serve: Serve) -> None:
    service = serve("moving.py")
    with service.connect() as client:
        assert who(client)[0] == 1
        client.post("sleep 1")
        service.wait_for(lambda: service.status()["processes"], 1)
        service.reload()
        assert served_by(client.read_line())[0] == 1
        service.wait_for(lambda: who(client)[0] == 2, 5)


def test_connection_that_never_rests_moves_between_two_messages(serve: Serve) -> None:
    service = serve("moving.py")
    with service.connect() as client:
        # Always one more message than has been answered: something is unread at any time.
        client.post("sleep 0.02")
        answers = []

        def is_moved() -> bool:
            client.post("sleep 0.02")
            answers.append(served_by(client.read_line())[0])
            return answers[-1] == 2

        for _ in range(5):
            assert not is_moved()
        service.reload()
        service.wait_for(is_moved, 5)
        client.read_line()
        assert answers == sorted(answers)
        assert ask(client, "seen") == str(len(answers) + 2)


def test_new_code_serves_while_an_endless_stream_drains_and_the_stop_is_in_time(
    serve: Serve,
) -> None:
    service = serve("moving.py", max_wait_time=2)
    with service.connect() as stream, service.connect() as other:
        stream.post("stream")
        assert stream.read_line() == b"tick"
        assert who(other)[0] == 1
        service.reload()
        service.wait_for(lambda: who(other)[0] == 2, 5)
        assert stream.read_line() == b"tick"
        service.wait_for(lambda: "why='a handler runs'" in service.log(), 5)
        service.wait_for(lambda: stream.is_closed(0.01) or not draining(service), 2 + 1.5)
        other.post("stream")
        assert other.read_line() == b"tick"
        service.ok("stop", timeout=2 + 1 + 1)


def test_recycled_worker_moves_its_connections_to_its_successor(serve: Serve) -> None:
    service = serve("moving.py", worker_num=1, max_request=50)
    old = service.seats()[0]
    with clients(service, 10) as many:
        for _ in range(6):
            for client in many:
                ask(client, "1")
        service.wait_for_end(old, 10)
        assert {who(client)[0] for client in many} == {1}
        assert all(ask(client, "seen") == "9" for client in many)
    service.wait_for(lambda: "connections moved count=10" in service.log(), 5)


def test_scale_down_moves_to_those_that_stay(serve: Serve) -> None:
    service = serve("moving.py", worker_num=3, max_conn=25)  # so that they spread
    with clients(service, 60) as many:
        assert {who(client)[1] for client in many} == {0, 1, 2}
        service.ok("scale", "worker=1")
        wait_until_moved(service)
        assert {who(client)[:2] for client in many} == {(1, 0)}
        assert all(ask(client, "seen") == "4" for client in many)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_connections_see_rapid_reloads_in_order(make: Serve, loop: str) -> None:
    service = make("moving.py")
    if loop == "asyncio":
        shadow = service.root / "shadow"
        shadow.mkdir()
        (shadow / "uvloop.py").write_text("raise ImportError\n")
        service.extra_environment["PYTHONPATH"] = f"{shadow}:{REPOSITORY}"
    service.start()
    with Steady(("127.0.0.1", service.port), {0.1: 60}) as steady:
        service.wait_for(lambda: steady.count.answered > 60, 10)
        for _ in range(6):
            service.reload()
    assert steady.count.faults == []
    service.wait_for(lambda: "connections moved" in service.log(), 5)


def test_connection_in_a_circle_of_frames_moves_all_the_same(serve: Serve) -> None:
    service = serve("moving.py")
    with service.connect() as client:
        assert ask(client, "circle") == "circle"
        service.reload()
        wait_until_moved(service)
        assert who(client)[0] == 2


@pytest.mark.heavy
def test_twenty_reloads_close_lose_double_and_misorder_nothing(serve: Serve) -> None:
    service = serve("moving.py")
    with Steady(("127.0.0.1", service.port), {1.0: scaled(2000), 0.1: scaled(200)}) as steady:
        for generation in range(2, 22):
            service.reload()
            service.wait_for(partial(has_served, steady, generation), 10)
    print(steady.count)  # noqa: T201 - the numbers of a run at full count
    assert steady.count.faults == []
    assert steady.count.closed == 0


def has_served(steady: Steady, generation: int) -> bool:
    return any(who.startswith(f"{generation}/") for who in [*steady.count.servers])
