"""What msgrcv(2) and msgsnd(2) can do and sysv_ipc does not offer: copy, cut, all but, long types.

Rules:
- Nothing waits here but wait_for(): every other call is IPC_NOWAIT.
- A buffer that is too small is never the end of it: E2BIG leaves the message at the head, so
  the call is made again with a larger one, unless the caller has set the limit himself.
- Errors are those of procd.linux.sysv.

MSG_COPY needs Linux 3.8 with CONFIG_CHECKPOINT_RESTORE, which every distribution sets.
"""

from __future__ import annotations

import ctypes
import errno
import os

from procd.errors import MessageTooBig
from procd.linux.sysv import MessageQueue, QueueEmpty, QueueError, message_bytes_max

_IPC_NOWAIT = 0o4000  # <linux/ipc.h>
_MSG_NOERROR = 0o10000  # <linux/msg.h>
_MSG_EXCEPT = 0o20000
_MSG_COPY = 0o40000

_LONG_BYTES = ctypes.sizeof(ctypes.c_long)
LARGEST_TYPE = 2 ** (8 * _LONG_BYTES - 1) - 1
_FIRST_BYTES = 8192  # the kernel's own default for the largest message

_libc = ctypes.CDLL(None, use_errno=True)
_libc.msgrcv.restype = ctypes.c_ssize_t
_libc.msgrcv.argtypes = (
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long, ctypes.c_int),
)
_libc.msgsnd.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _TooSmall(Exception):
    """The message is larger than the buffer, and stays at the head."""


def receive(queue: MessageQueue, mtype: int = 0, *, all_but: bool = False) -> tuple[bytes, int]:
    """Take a message off, however large: (data, type).

    *mtype* as in MessageQueue.receive(), up to LARGEST_TYPE; with *all_but* the oldest whose
    type is not *mtype*. Raises QueueEmpty, QueueGone, QueueDenied, ValueError.
    """
    return _whole(queue, mtype, _MSG_EXCEPT if all_but else 0)


def receive_cut(
    queue: MessageQueue, mtype: int, data_bytes: int, *, all_but: bool = False
) -> tuple[bytes, int]:
    """Take a message off and keep its first *data_bytes*; the rest of it is lost (MSG_NOERROR)."""
    flags = _MSG_NOERROR | (_MSG_EXCEPT if all_but else 0)
    return _msgrcv(queue, data_bytes, mtype, flags)


def receive_small(
    queue: MessageQueue, mtype: int, data_bytes: int, *, all_but: bool = False
) -> tuple[bytes, int]:
    """Take a message off if it has at most *data_bytes*.

    Raises MessageTooBig for a larger one, which stays where it is: the next call finds it again.
    """
    try:
        return _msgrcv(queue, data_bytes, mtype, _MSG_EXCEPT if all_but else 0)
    except _TooSmall:
        raise MessageTooBig(
            f"{queue!r}: the next message has more than {data_bytes} bytes; it was left where it is"
        ) from None


def copy(queue: MessageQueue, index: int = 0) -> tuple[bytes, int]:
    """Look at a message without taking it off: (data, type) of the one at *index*, 0 = the oldest.

    Needs the right to read. Raises QueueEmpty if there are not that many.
    """
    if index < 0:
        raise ValueError(f"{index} is no place in a queue: 0 is the oldest message")
    return _whole(queue, index, _MSG_COPY)


class Window:
    """copy() for one thread that looks again and again: with one buffer, and less of each call."""

    def __init__(self, queue: MessageQueue) -> None:
        self.queue = queue
        self._data_bytes = max(_FIRST_BYTES, message_bytes_max())
        buffer = ctypes.create_string_buffer(_LONG_BYTES + self._data_bytes)
        self._buffer = buffer  # kept alive by this
        self._address = ctypes.addressof(buffer)
        self._bytes = memoryview(buffer).cast("B")
        self._type = self._bytes[:_LONG_BYTES].cast("l")

    def look(self, index: int) -> tuple[bytes, int]:
        """As copy()."""
        count = _libc.msgrcv(
            self.queue.id, self._address, self._data_bytes, index, _MSG_COPY | _IPC_NOWAIT
        )
        if count < 0:
            return copy(self.queue, index)  # which knows why, and what to do
        return bytes(self._bytes[_LONG_BYTES : _LONG_BYTES + count]), self._type[0]


def wait_for(queue: MessageQueue, mtype: int) -> int | None:
    """Wait until a message of *mtype* (as in receive()) is there, and leave it there: None.

    One without any bytes is taken off all the same, for msgrcv(2) finds nothing wrong with it:
    its type is returned then. Waits in the kernel, without the interpreter's lock and whatever
    signals come: for a thread that nobody waits for. Raises QueueGone, also when the queue is
    removed meanwhile, QueueDenied.
    """
    message = ctypes.create_string_buffer(_LONG_BYTES)
    while True:
        if _libc.msgrcv(queue.id, message, 0, mtype, 0) >= 0:
            return ctypes.c_long.from_buffer(message).value
        match ctypes.get_errno():
            case errno.E2BIG:
                return None
            case errno.EINTR:
                pass
            case code:
                raise _meaning(queue, code)


def send(queue: MessageQueue, data: bytes, mtype: int) -> None:
    """As MessageQueue.send(), for types of more than 31 bits too."""
    if not isinstance(data, bytes):
        raise TypeError(f"a message is bytes, not {type(data).__name__}")
    if not 1 <= mtype <= LARGEST_TYPE:
        raise ValueError(f"{mtype} is no message type: 1 .. {LARGEST_TYPE}")
    message = ctypes.create_string_buffer(_LONG_BYTES + len(data))
    ctypes.c_long.from_buffer(message).value = mtype
    ctypes.memmove(ctypes.addressof(message) + _LONG_BYTES, data, len(data))
    if _libc.msgsnd(queue.id, message, len(data), _IPC_NOWAIT) == 0:
        return
    match ctypes.get_errno():
        case errno.EAGAIN:
            raise queue.no_room(len(data))
        case errno.EINVAL if len(data) > (limit := message_bytes_max()):
            raise MessageTooBig(
                f"{len(data)} bytes are too many for {queue!r}: kernel.msgmax is {limit}"
            )
        case code:
            raise _meaning(queue, code)


def _whole(queue: MessageQueue, mtype: int, flags: int) -> tuple[bytes, int]:
    data_bytes = _FIRST_BYTES
    while True:
        try:
            return _msgrcv(queue, data_bytes, mtype, flags)
        except _TooSmall:
            data_bytes *= 4


def _msgrcv(queue: MessageQueue, data_bytes: int, mtype: int, flags: int) -> tuple[bytes, int]:
    if not -LARGEST_TYPE <= mtype <= LARGEST_TYPE:
        raise ValueError(f"{mtype} is no message type: {-LARGEST_TYPE} .. {LARGEST_TYPE}")
    message = ctypes.create_string_buffer(_LONG_BYTES + data_bytes)
    count = _libc.msgrcv(queue.id, message, data_bytes, mtype, flags | _IPC_NOWAIT)
    if count >= 0:
        data = ctypes.string_at(ctypes.addressof(message) + _LONG_BYTES, count)
        return data, ctypes.c_long.from_buffer(message).value
    match ctypes.get_errno():
        case errno.ENOMSG:
            raise QueueEmpty(f"{queue!r} holds no such message")
        case errno.E2BIG:
            raise _TooSmall
        case errno.EINVAL if flags & _MSG_COPY and queue.messages:  # QueueGone if it is that
            raise MessageTooBig(
                f"{queue!r}: the message is larger than kernel.msgmax is now: it can be received"
                " but not looked at"
            )
        case errno.ENOSYS if flags & _MSG_COPY:
            raise QueueError("this kernel cannot look into a queue (CONFIG_CHECKPOINT_RESTORE)")
        case code:
            raise _meaning(queue, code)


def _meaning(queue: MessageQueue, code: int) -> QueueError:
    match code:
        case errno.EINVAL | errno.EIDRM:
            return queue.gone()
        case errno.EACCES:
            return queue.denied()
        case _:
            return QueueError(f"{queue!r}: {os.strerror(code)}")
