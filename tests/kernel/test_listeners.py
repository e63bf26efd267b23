"""Listeners on real sockets: what is bound, what is left alone, what is said when it cannot be."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from procd.config import address
from procd.errors import StartFailed
from procd.master import listeners
from procd.master.listeners import Listener
from tests.kernel.forked import NOBODY, Say, as_nobody, forked, needs_root, outcome, wait_for_ever

Bind = Callable[[str], Listener]


@pytest.fixture(name="bind")
def bind_and_close() -> Iterator[Bind]:
    bound: list[Listener] = []

    def bind(text: str) -> Listener:
        bound.append(listeners.bind(address.parse(text, "/"), 16))
        return bound[-1]

    yield bind
    for listener in bound:
        listener.close()


@pytest.fixture(name="path")
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "app.sock"


def connect(listener: Listener) -> None:
    with socket.socket(listener.socket.family) as client:
        client.connect(listener.socket.getsockname())


def refusal(body: Callable[[], object]) -> str:
    with pytest.raises(StartFailed) as caught:
        body()
    text = str(caught.value)
    assert text.startswith("cannot listen on ")
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- tcp


@pytest.mark.parametrize(
    ("text", "shown"),
    [("tcp://127.0.0.1:0", "tcp://127.0.0.1:"), ("tcp://[::1]:0", "tcp://[::1]:")],
)
def test_a_tcp_listener_tells_the_port_that_it_got(bind: Bind, text: str, shown: str) -> None:
    listener = bind(text)
    port = listener.socket.getsockname()[1]
    assert port > 0
    assert listener.address == f"{shown}{port}"
    assert listener.listen.text == text
    connect(listener)


def test_a_listener_neither_blocks_nor_goes_over_an_exec(bind: Bind) -> None:
    listener = bind("tcp://127.0.0.1:0")
    assert not listener.socket.getblocking()
    assert not listener.socket.get_inheritable()
    with pytest.raises(BlockingIOError):
        listener.socket.accept()


def test_a_name_is_resolved_and_means_ipv4_where_it_has_both(bind: Bind) -> None:
    assert bind("tcp://localhost:0").address.startswith("tcp://127.0.0.1:")


def test_all_of_ipv6_leaves_the_port_to_all_of_ipv4(bind: Bind) -> None:
    port = bind("tcp://[::]:0").socket.getsockname()[1]
    assert bind(f"tcp://0.0.0.0:{port}").address == f"tcp://0.0.0.0:{port}"


def test_a_port_with_connections_of_the_last_run_is_free(bind: Bind) -> None:
    first = bind("tcp://127.0.0.1:0")
    text = first.address
    with socket.create_connection(first.socket.getsockname()) as client:
        served, _ = first.socket.accept()
        served.close()  # the server closes first: its end goes into TIME_WAIT
        assert client.recv(1) == b""
    first.close()
    assert bind(text).address == text


def test_a_taken_port_is_named_with_the_way_to_its_owner(bind: Bind) -> None:
    taken = bind("tcp://127.0.0.1:0").address
    said = refusal(lambda: bind(taken))
    assert taken in said
    assert "the port is taken" in said
    assert f"ss -ltnp 'sport = {taken.rpartition(':')[2]}'" in said


def test_an_address_of_no_interface_is_named(bind: Bind) -> None:
    assert "no interface here has 192.0.2.1" in refusal(lambda: bind("tcp://192.0.2.1:0"))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64])
def test_a_name_that_nobody_knows_is_named(bind: Bind, host: str) -> None:
    said = refusal(lambda: bind(f"tcp://{host}:9000"))
    assert f"{host!r} is no address of this machine" in said


@needs_root
def test_a_privileged_port_names_the_right_and_the_way_round_it(bind: Bind) -> None:
    floor = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if floor <= 1:
        pytest.skip("every port is free for everybody here")

    def body() -> None:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        bind("tcp://127.0.0.1:1")

    said = outcome(body)
    assert said.startswith("StartFailed")
    assert "tcp://127.0.0.1:1" in said
    assert "CAP_NET_BIND_SERVICE" in said


# ---------------------------------------------------------------- unix


def test_a_unix_listener_tells_its_path_and_removes_it_when_closed(bind: Bind, path: Path) -> None:
    listener = bind(f"unix://{path}")
    assert listener.address == f"unix://{path}"
    assert listener.socket.getsockname() == str(path)
    connect(listener)
    listener.close()
    assert os.listdir(path.parent) == []
    listener.close()  # twice is no error


@pytest.mark.parametrize(
    ("query", "mode"),
    [("", 0o660), ("?mode=0600", 0o600), ("?mode=0666", 0o666), ("?mode=777", 0o777)],
)
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_socket_has_its_mode_whatever_the_umask(
    bind: Bind, path: Path, query: str, mode: int, umask: int
) -> None:
    old = os.umask(umask)
    try:
        bind(f"unix://{path}{query}")
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(old)


def test_a_socket_never_stands_with_another_mode(path: Path) -> None:
    """The kernel applies the umask as it makes the file: nobody has to be quicker than a chmod."""
    old = os.umask(0o117)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(old)


def test_the_socket_of_a_dead_process_is_taken_over(bind: Bind, path: Path) -> None:
    def body(say: Say) -> None:
        bind(f"unix://{path}")
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        child.kill()
    assert path.is_socket()
    connect(bind(f"unix://{path}"))


def test_a_socket_that_somebody_listens_on_is_left_to_him(bind: Bind, path: Path) -> None:
    first = bind(f"unix://{path}")
    assert f"another process listens on {path}" in refusal(lambda: bind(f"unix://{path}"))
    connect(first)


def test_a_living_socket_with_a_full_backlog_is_left(bind: Bind, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with socket.socket(socket.AF_UNIX) as more:
            more.setblocking(False)
            assert more.connect_ex(str(path)) == errno.EAGAIN
        assert "another process listens" in refusal(lambda: bind(f"unix://{path}"))
        assert path.is_socket()


def test_a_datagram_socket_is_left(bind: Bind, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert "another process" in refusal(lambda: bind(f"unix://{path}"))
        assert path.is_socket()


@needs_root
def test_a_socket_that_may_not_be_asked_is_left(bind: Bind) -> None:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o705)
        path = Path(folder) / "app.sock"
        bind(f"unix://{path}?mode=0600")

        said = outcome(as_nobody(lambda: bind(f"unix://{path}")))
        assert "is a socket of another user" in said
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
def test_what_is_no_socket_is_never_deleted(bind: Bind, path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("/tmp/elsewhere")
        case "fifo":
            os.mkfifo(path)
    before = path.lstat()
    assert f"{path} exists and is no socket" in refusal(lambda: bind(f"unix://{path}"))
    assert os.path.samestat(before, path.lstat())


def test_closing_leaves_a_path_that_is_somebody_elses_by_now(bind: Bind, path: Path) -> None:
    first = bind(f"unix://{path}")
    path.unlink()
    second = bind(f"unix://{path}")
    first.close()
    connect(second)
    path.unlink()
    path.write_text("precious")
    second.close()
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_is_measured(bind: Bind, tmp_path: Path) -> None:
    longest = tmp_path / ("x" * (107 - len(os.fsencode(tmp_path)) - 1))
    connect(bind(f"unix://{longest}"))
    listen = address.parse(f"unix://{longest}", "/")
    longer = type(listen)(listen.scheme, "", 0, f"{longest}x", None, "", f"unix://{longest}x")
    assert "has 108 bytes, the kernel takes 107" in refusal(lambda: listeners.bind(longer, 1))


def test_a_missing_folder_is_named(bind: Bind, path: Path) -> None:
    below = path / "app.sock"
    assert f"folder {path} does not exist" in refusal(lambda: bind(f"unix://{below}"))
    path.write_text("")
    assert f"{path} is no folder" in refusal(lambda: bind(f"unix://{below}"))


@needs_root
def test_a_folder_that_may_not_be_written_is_named(bind: Bind) -> None:
    def body() -> None:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        bind("unix:///etc/app.sock")

    said = outcome(body)
    assert said.startswith("StartFailed")
    assert f"uid {NOBODY} may not make or remove a socket in /etc" in said
