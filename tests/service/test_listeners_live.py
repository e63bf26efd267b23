"""Listeners added, removed and changed while the service runs: nobody who got through is lost."""

from __future__ import annotations

import socket
import stat
import subprocess
import threading
from contextlib import ExitStack

import pytest

from tests.service.client import Address, Client
from tests.service.conftest import Serve
from tests.service.daemon import scaled
from tests.service.edits import BOTH_WAYS, Begin, apply, free_port, loaded, refuse, restore, serves

KEPT = "tcp://127.0.0.1:0"


def is_refused(address: Address) -> bool:
    try:
        Client(address, 5).socket.close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


@BOTH_WAYS
@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_listener_is_added_and_removed(begin: Begin, way: str, scheme: str) -> None:
    service = begin(way)
    port, path = free_port(), service.root / "app.sock"
    text = f"tcp://127.0.0.1:{port}" if scheme == "tcp" else f"unix://{path}"
    address = Client.address_of(text)
    (first,) = service.status()["listeners"]
    with loaded(service):
        said = apply(service, way, lambda: serves(address), listen=[KEPT, text])
        assert f"+ {text}" in said
        assert service.status()["listeners"] == [first, text]
        said = apply(service, way, lambda: is_refused(address), listen=[KEPT])
        assert f"- {text}" in said
    assert service.status()["listeners"] == [first]  # port 0 has kept its port
    assert service.status()["generation"] == 3
    assert not path.exists()


@BOTH_WAYS
def test_listener_is_changed_to_another_port(begin: Begin, way: str) -> None:
    old, new = free_port(), free_port()
    service = begin(way, listen=[KEPT, f"tcp://127.0.0.1:{old}"])
    with loaded(service):
        apply(
            *(service, way),
            lambda: serves(("127.0.0.1", new)),
            listen=[KEPT, f"tcp://127.0.0.1:{new}"],
        )
        service.wait_for(lambda: is_refused(("127.0.0.1", old)), 5)


@pytest.mark.parametrize(
    ("old", "new"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("localhost", "127.0.0.1")]
)
def test_listener_is_changed_to_another_address_of_its_port(
    begin: Begin, old: str, new: str
) -> None:
    port = free_port()
    service = begin("reload", listen=[f"tcp://{old}:{port}"])
    with loaded(service, ("127.0.0.1", port)):
        service.edit("import ast\n", "import ast\nimport no_such_module\n")
        service.configure(listen=[f"tcp://{new}:{port}"])
        assert service.run("reload").returncode == 1  # and takes no client meanwhile
        service.edit("import no_such_module\n", "")
        service.reload()
    assert service.status()["listeners"] == [f"tcp://{new}:{port}"]


@BOTH_WAYS
def test_mode_of_a_unix_socket_is_changed_in_its_place(begin: Begin, way: str) -> None:
    service = begin("reload" if way == "reload" else "watch")
    path = service.root / "app.sock"
    apply(service, way, path.exists, listen=[f"unix://{path}"])
    inode = path.stat().st_ino
    with loaded(service, str(path)):
        said = apply(
            *(service, way),
            lambda: stat.S_IMODE(path.stat().st_mode) == 0o600,
            listen=[f"unix://{path}?mode=0600"],
        )
    assert "mode 0660 -> 0600" in said
    assert path.stat().st_ino == inode


@BOTH_WAYS
def test_taken_port_refuses_the_whole_edit(begin: Begin, way: str) -> None:
    service = begin(way)
    good = service.config_path.read_text()
    path = service.root / "app.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken, loaded(service):
        text = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        service.configure(listen=[KEPT, f"unix://{path}", text], worker_num=3)
        refuse(service, way, f"cannot listen on {text}: the port is taken")
        assert not path.exists()
        restore(service, way, good)
    assert len(service.pids("worker")) == 2
    apply(service, way, lambda: serves(("127.0.0.1", taken_port(text))), listen=[KEPT, text])


def taken_port(text: str) -> int:
    return int(text.rpartition(":")[2])


def test_name_that_nobody_knows_refuses_the_edit(begin: Begin) -> None:
    service = begin("reload")
    service.configure(listen=[KEPT, "tcp://no-such-host.invalid:9"])
    refuse(service, "reload", "no address of this machine")


def test_socket_that_systemd_did_not_pass_refuses_the_edit(begin: Begin) -> None:
    service = begin("reload")
    service.configure(listen=[KEPT, "systemd://web"])
    refuse(service, "reload", "systemd passed this process no socket")


def test_socket_of_systemd_is_added_removed_and_added_again(make: Serve) -> None:
    service = make()
    with socket.create_server(("127.0.0.1", 0)) as handed:
        address = ("127.0.0.1", handed.getsockname()[1])
        script = f'exec 3<&{handed.fileno()}; export LISTEN_PID=$$; exec "$@"'
        with (service.root / "out").open("wb") as out:
            service.foreground = subprocess.Popen(
                ["bash", "-c", script, "bash", *service.argv("start", "--foreground")],
                env=service.environment() | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"},
                pass_fds=[handed.fileno()],
                stdout=out,
                stderr=out,
            )
        service.wait_for(lambda: service.is_running() and service.seats(), 10)
        for _ in range(2):
            service.configure(listen=[KEPT, "systemd://web"])
            service.reload()
            assert serves(address)
            service.configure(listen=[KEPT])
            service.reload()
        with Client(address) as waits:  # systemd's own socket holds it for whoever comes next
            waits.post("VERSION")
            service.configure(listen=[KEPT, "systemd://web"])
            service.reload()
            assert waits.read_answer() == "1"


def test_reload_of_tasks_leaves_the_listeners_to_the_next_reload_of_all(begin: Begin) -> None:
    service = begin("reload")
    port = free_port()
    service.configure(listen=[KEPT, f"tcp://127.0.0.1:{port}"])
    assert "listen" not in service.reload("--tasks").stdout
    assert is_refused(("127.0.0.1", port))
    assert f"listen + tcp://127.0.0.1:{port}" in service.reload().stdout
    assert serves(("127.0.0.1", port))


# ---------------------------------------------------------------- who is under way


def test_all_that_wait_in_the_backlog_of_a_removed_listener_are_answered(begin: Begin) -> None:
    port, path = free_port(), "app.sock"
    service = begin("reload", worker_num=2, max_conn=10)
    listen = [f"tcp://127.0.0.1:{port}", f"unix://{service.root}/{path}"]
    service.configure(listen=[KEPT, *listen])
    service.reload()
    addresses = [Client.address_of(text) for text in listen]
    service.configure(listen=[KEPT])
    with ExitStack() as stack:
        for address in addresses * 10:  # both workers are full: the next ones wait
            stack.enter_context(Client(address)).post("note('in') or await slowly(0.5)")
        service.wait_for(lambda: len(service.ledger("in")) == 20, 5)
        waiting = [stack.enter_context(Client(address)) for address in addresses * 100]
        service.reload()
        for client in waiting:
            client.post("server.generation")
        assert {client.read_answer() for client in waiting} <= {2, 3}
    assert all(is_refused(address) for address in addresses)


def test_what_a_stuck_worker_leaves_of_a_removed_listener_a_new_one_answers(begin: Begin) -> None:
    port = free_port()
    service = begin("reload", worker_num=1, listen=[KEPT, f"tcp://127.0.0.1:{port}"])
    with ExitStack() as stack:
        stuck = stack.enter_context(service.connect())
        stuck.post("note('in') or blocking(4)")
        service.wait_for(lambda: service.ledger("in"), 5)
        waiting = [stack.enter_context(Client(("127.0.0.1", port))) for _ in range(20)]
        service.configure(listen=[KEPT])
        service.reload()
        for client in waiting:
            client.post("server.generation")
        assert {client.read_answer(3) for client in waiting} == {2}
        assert stuck.read_answer()["generation"] == 1
    service.wait_for(lambda: is_refused(("127.0.0.1", port)), 5)


class Crowd(threading.Thread):
    """Connects and asks, again and again, until the listener is gone."""

    def __init__(self, address: Address) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.answers = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while True:
            try:
                client = Client(self.address)
            except (ConnectionRefusedError, FileNotFoundError):
                return
            with client:
                try:
                    client.ask("VERSION")
                    self.answers += 1
                except (OSError, EOFError) as error:
                    self.lost.append(repr(error))


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_nobody_who_connects_while_a_listener_is_removed_is_reset(
    begin: Begin, scheme: str
) -> None:
    service = begin("reload")
    path = service.root / "app.sock"
    text = f"tcp://127.0.0.1:{free_port()}" if scheme == "tcp" else f"unix://{path}"
    answers = 0
    with loaded(service):
        for _ in range(scaled(100)):
            service.configure(listen=[KEPT, text])
            service.reload()
            crowd = [Crowd(Client.address_of(text)) for _ in range(12)]
            for one in crowd:
                one.start()
            service.wait_for(lambda crowd=crowd: all(one.answers > 3 for one in crowd), 10)  # type: ignore[misc]
            service.configure(listen=[KEPT])
            service.reload()
            for one in crowd:
                one.join(15)
                assert not one.is_alive()
                assert one.lost == []
                answers += one.answers
    assert answers > 36


def test_old_worker_that_is_killed_during_the_boot_comes_back_on_the_old_listeners(
    begin: Begin,
) -> None:
    old, new = free_port(), free_port()
    service = begin("reload", worker_num=1, listen=[KEPT, f"tcp://127.0.0.1:{old}"])
    gate = service.root / "gate"
    gate.touch()
    service.edit(
        "\nVERSION = ", f"\nwhile os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\nVERSION = "
    )
    service.configure(listen=[KEPT, f"tcp://127.0.0.1:{new}"])
    command = subprocess.Popen(service.argv("reload"), env=service.environment())
    service.wait_for(lambda: service.status()["reload"]["state"] == "booting", 5)
    (worker,) = service.pids("worker")
    service.kill(worker)
    service.wait_for(lambda: service.pids("worker") not in ([], [worker]), 5)
    assert serves(("127.0.0.1", old))
    gate.unlink()
    assert command.wait(20) == 0
    assert serves(("127.0.0.1", new))
    assert is_refused(("127.0.0.1", old))
    for pid in service.seats():
        service.kill(pid)
    service.wait_for(lambda: len(service.seats()) == 2, 10)
    assert serves(("127.0.0.1", new))


def test_stop_during_the_boot_removes_what_was_added(begin: Begin) -> None:
    service = begin("reload", boot_timeout=60)
    path = service.root / "app.sock"
    service.edit("\nVERSION = ", "\ntime.sleep(60)\nVERSION = ")
    service.configure(listen=[KEPT, f"unix://{path}"])
    with subprocess.Popen(service.argv("reload"), env=service.environment()) as command:
        service.wait_for(path.exists, 5)
        service.stop()
        assert command.wait(10) == 1
    assert not path.exists()
