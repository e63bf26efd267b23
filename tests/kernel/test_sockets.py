"""A listening socket that takes no new client loses none of those that it has."""

from __future__ import annotations

import errno
import select
import socket

import pytest

from procd.linux import sockets


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_who_has_connected_is_accepted_and_who_begins_to_is_refused_by_the_close(
    family: socket.AddressFamily, host: str
) -> None:
    with socket.socket(family) as listener, socket.socket(family) as late:
        listener.bind((host, 0))
        listener.listen(16)
        listener.setblocking(False)
        early = [socket.create_connection(listener.getsockname()[:2]) for _ in range(5)]
        early[0].sendall(b"before ")

        sockets.take_no_new_client(listener)
        late.setblocking(False)
        assert late.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        early[0].sendall(b"after")
        accepted = [listener.accept()[0] for _ in early]
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.close()

        assert accepted[0].recv(100) == b"before after"
        for one, other in zip(accepted, early, strict=True):
            one.sendall(b"answer")
            assert other.recv(100) == b"answer"
            one.close()
            other.close()
        assert select.select([], [late], [], 10)[1] == [late]
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
