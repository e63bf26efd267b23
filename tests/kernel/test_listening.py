"""The set of listeners over reloads, on real sockets: what is bound, kept, emptied and closed."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.config import address
from procd.config.schema import Config
from procd.errors import StartFailed
from procd.master.listeners import Listener
from procd.master.listening import Listening
from tests.pure.configs import loaded

ANY = "tcp://127.0.0.1:0"


@pytest.fixture(name="listening")
def one_listener() -> Iterator[Listening]:
    listening = Listening()
    yield listening
    listening.close()


def config(folder: Path, *texts: str) -> Config:
    listens = tuple(address.parse(text, "/") for text in texts)
    return dataclasses.replace(loaded(folder, ""), listen=listens)


def begun(listening: Listening, start: Config) -> Listener:
    listening.open(start.listen, start.backlog)
    listening.prepare(1, start, {})
    listening.take_over(1, start)
    return listening.serving[0]


def test_the_same_socket_stays_and_each_generation_has_its_own_list(
    listening: Listening, tmp_path: Path
) -> None:
    first = begun(listening, config(tmp_path, ANY))
    new = config(tmp_path, ANY, ANY)
    listening.prepare(2, new, {})
    assert listening.serving == [first]
    assert listening.of(1) == [first]
    assert listening.of(2)[0].socket is first.socket
    listening.take_over(2, new)
    assert len(listening.serving) == 2
    assert listening.leaving(1) == []


def test_a_removed_one_is_named_by_its_index_until_it_is_closed(
    listening: Listening, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    begun(listening, config(tmp_path, ANY, f"unix://{path}"))
    gone = listening.serving[1]
    new = config(tmp_path, ANY)
    listening.prepare(2, new, {})
    listening.take_over(2, new)
    assert listening.leaving(1) == [1]
    assert listening.leaving(2) == []
    assert not path.exists()
    assert gone.socket.fileno() >= 0
    listening.close_leaving(2)
    assert gone.socket.fileno() == -1
    assert listening.leaving(1) == []


def test_one_that_cannot_be_bound_leaves_all_as_it_was(
    listening: Listening, tmp_path: Path
) -> None:
    first = begun(listening, config(tmp_path, ANY))
    path = tmp_path / "app.sock"
    before = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        new = config(tmp_path, f"unix://{path}", f"tcp://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StartFailed, match="the port is taken"):
            listening.prepare(2, new, {})
    assert listening.serving == [first]
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_refused_generation_takes_its_own_ones_with_it(
    listening: Listening, tmp_path: Path
) -> None:
    first = begun(listening, config(tmp_path, ANY))
    path = tmp_path / "app.sock"
    listening.prepare(2, config(tmp_path, ANY, f"unix://{path}"), {})
    assert path.exists()
    listening.refuse(2)
    assert not path.exists()
    assert listening.serving == [first]


def test_names_are_taken_as_they_were_looked_up(listening: Listening, tmp_path: Path) -> None:
    begun(listening, config(tmp_path, ANY))
    new = config(tmp_path, "tcp://here.invalid:0")
    with pytest.raises(StartFailed, match="no address of this machine"):
        listening.prepare(2, new, {})
    listening.prepare(2, new, {"here.invalid": "127.0.0.1"})
    assert listening.of(2)[0].address.startswith("tcp://127.0.0.1:")


def test_a_new_mode_is_given_to_our_own_socket_only(listening: Listening, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    begun(listening, config(tmp_path, f"unix://{path}"))
    for generation, mode in ((2, 0o600), (3, 0o660)):
        new = config(tmp_path, f"unix://{path}?mode={mode:04o}")
        listening.prepare(generation, new, {})
        listening.take_over(generation, new)
        assert stat.S_IMODE(path.stat().st_mode) == mode
    path.unlink()
    path.write_text("somebody else's")
    path.chmod(0o644)
    new = config(tmp_path, f"unix://{path}?mode=0600")
    listening.prepare(4, new, {})
    listening.take_over(4, new)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_stopped_service_binds_no_more(tmp_path: Path) -> None:
    listening = Listening()
    begun(listening, config(tmp_path, ANY))
    listening.close()
    with pytest.raises(StartFailed):
        listening.prepare(2, config(tmp_path, ANY), {})


def test_more_than_a_worker_can_be_given_are_refused(listening: Listening, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="63 at most"):
        listening.open(config(tmp_path, *[ANY] * 64).listen, 16)
