"""What Python's socket module does not say of Linux sockets."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# Classic BPF, as linux/filter.h has it: code, jump if true, jump if false, operand. The packet
# begins with the TCP header; its byte 13 holds the flags, 0x02 is SYN and 0x10 is ACK.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the flags
    (0x54, 0, 0, 0x12),  # SYN and ACK of them
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # then drop it
    (0x06, 0, 0, 0x7FFFFFFF),  # else take it, whole
)


def take_no_new_client(sock: socket.socket) -> None:
    """Have a listening TCP socket ignore whoever begins to connect; who has begun may finish.

    What its backlog holds stays there to be accepted, and nothing is added behind the one who
    accepts it: so it can be closed without a reset. Who was ignored tries again after a second.
    No privilege is needed (socket(7), SO_ATTACH_FILTER). Raises OSError.
    """
    code = b"".join(struct.pack("=HBBI", *line) for line in _DROP_SYN)
    kept = ctypes.create_string_buffer(code)  # the kernel copies it within the call
    program = struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(kept))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
