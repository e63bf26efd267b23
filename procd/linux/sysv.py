"""SysV message queues: the one place that touches sysv_ipc.

Rules:
- Nothing reaches sysv_ipc before its type is checked: send() of what is not bytes-like
  crashes the interpreter (it releases a buffer that it never got).
- Every handle can take the largest message that the kernel lets anybody send. A smaller
  buffer raises E2BIG and leaves the message at the head: a poison pill for a reading loop.
- Every error has a name and says which queue and what to do; sysv_ipc's own never leave.
- A handle is a number, no fd: it survives a fork, and closing nothing closes it. The queue
  lives until somebody removes it.

Kernel: msgget(2), msgop(2), msgctl(2), sysvipc(7).
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable

import sysv_ipc

from procd.errors import MessageTooBig, ProcdError

IPC_PRIVATE = 0
LARGEST_TYPE = 2**31 - 1  # sysv_ipc takes a C int; foreign programs may send larger types


class QueueError(ProcdError):
    """Base of all errors of a SysV message queue."""


class QueueFull(QueueError):
    """There is no room now."""


class QueueEmpty(QueueError):
    """There is no message of the wanted type now."""


class QueueGone(QueueError):
    """No queue stands under this key, or this one was removed."""


class QueueExists(QueueError):
    """A queue stands under this key already."""


class QueueDenied(QueueError):
    """The queue's owner and mode do not allow this, or the kernel allows no queue at all."""


def message_bytes_max() -> int:
    """The largest message that the kernel takes now: kernel.msgmax."""
    with open("/proc/sys/kernel/msgmax", "rb") as msgmax:
        return int(msgmax.read())


def label(key: int) -> str:
    """The key as `ipcs -q` prints it."""
    return f"0x{key & 0xFFFFFFFF:08x}"


class MessageQueue:
    """A handle on one queue: bytes in, bytes out, nothing about what they mean."""

    __slots__ = ("_handle", "_receive", "_send", "id", "key", "message_bytes_max")

    def __init__(self, key: int, flags: int, mode: int) -> None:
        """Use create(), create_key() or open()."""
        self.key = _checked_key(key)
        message_bytes = message_bytes_max()
        handle = _get(self.key, flags, mode, message_bytes)
        self.id = int(handle.id)
        self._use(handle, message_bytes)

    @classmethod
    def create(cls, mode: int = 0o600) -> MessageQueue:
        """Make a queue under a key that nobody can guess and nobody uses."""
        while True:
            try:
                # sysv_ipc's own choice (key=None) picks from 32,766 keys only.
                return cls.create_key(1 + secrets.randbelow(2**31 - 1), mode)
            except QueueExists:
                continue

    @classmethod
    def create_key(cls, key: int, mode: int = 0o600) -> MessageQueue:
        """Make the queue *key*; raises QueueExists, never takes one over."""
        return cls(key, sysv_ipc.IPC_CREX, mode)

    @classmethod
    def open(cls, key: int, access: int = 0o600) -> MessageQueue:
        """Open the queue *key*, to read and write it (0o600), read (0o400) or write (0o200) only.

        Raises QueueGone if there is none, QueueDenied if its mode does not give that access.
        """
        return cls(key, 0, access)

    def send(self, data: bytes, mtype: int = 1, *, block: bool = False) -> None:
        """Append a message of type *mtype* (1 .. 2**31-1).

        Raises QueueFull if there is no room and *block* is false, QueueGone, QueueDenied,
        MessageTooBig, TypeError, ValueError. A signal's handler runs and the wait goes on,
        but one that came just before the wait is only seen after it: see procd.ipc.queue.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"a message is bytes, not {type(data).__name__}")
        while True:
            try:
                return self._send(data, block, mtype)
            except sysv_ipc.BusyError:
                raise self.no_room(len(data)) from None
            except (sysv_ipc.Error, OSError, ValueError, OverflowError) as error:
                self._may_go_on(error, mtype, len(data))

    def receive(self, mtype: int = 0, *, block: bool = False) -> tuple[bytes, int]:
        """Take a message off: (data, type).

        *mtype* 0 is the oldest of any type, N the oldest of type N, -N the oldest of the
        lowest type up to N. Raises QueueEmpty if there is none and *block* is false,
        QueueGone, QueueDenied. Signals as with send().
        """
        while True:
            try:
                return self._receive(block, mtype)
            except sysv_ipc.BusyError:
                raise QueueEmpty(f"{self!r} holds no message of type {mtype or 'any'}") from None
            except (sysv_ipc.Error, OSError, OverflowError) as error:
                self._may_go_on(error, mtype, 0)

    def remove(self) -> None:
        """Remove the queue with all that is in it; whoever waits on it gets QueueGone.

        Nothing happens if it is gone already, also if another queue has its key by now.
        """
        try:
            self._handle.remove()
        except sysv_ipc.ExistentialError:
            return
        except sysv_ipc.PermissionsError:
            raise QueueDenied(f"{self!r} can only be removed by its owner or root") from None

    def give_to(self, uid: int, gid: int) -> None:
        """Make that user the owner. The creator keeps an owner's rights. Raises as change()."""
        self.change(uid=uid, gid=gid)

    def change(self, **fields: int) -> None:
        """Set mode, uid, gid or max_size, one after the other: msgctl(2), IPC_SET.

        For the owner, the creator and root; a max_size above kernel.msgmnb needs
        CAP_SYS_RESOURCE. Raises QueueGone, QueueDenied.
        """
        for field, value in fields.items():
            try:
                setattr(self._handle, field, value)
            except sysv_ipc.ExistentialError:
                raise self.gone() from None
            except sysv_ipc.PermissionsError:
                raise self.denied() from None

    @property
    def messages(self) -> int:
        """How many messages wait in it."""
        return self._stat("current_messages")

    @property
    def bytes_max(self) -> int:
        """How many bytes it may hold in all (kernel.msgmnb when it was made)."""
        return self._stat("max_size")

    @property
    def owner_uid(self) -> int:
        return self._stat("uid")

    @property
    def creator_uid(self) -> int:
        return self._stat("cuid")

    @property
    def mode(self) -> int:
        """Permissions, the lowest nine bits as with files (x means nothing)."""
        return self._stat("mode") & 0o777

    @property
    def last_send(self) -> int:
        """When the last message was sent, in seconds since 1970; 0 = never."""
        return self._stat("last_send_time")

    @property
    def last_receive(self) -> int:
        """When the last message was received, in seconds since 1970; 0 = never."""
        return self._stat("last_receive_time")

    @property
    def last_receiver(self) -> int:
        return self._stat("last_receive_pid")  # 0 = nobody yet, or nobody of this namespace

    def __repr__(self) -> str:
        return f"queue {label(self.key)}"

    def _stat(self, field: str) -> int:
        try:
            return int(getattr(self._handle, field))
        except sysv_ipc.ExistentialError:
            raise self.gone() from None
        except sysv_ipc.PermissionsError:
            raise self.denied() from None

    def gone(self) -> QueueGone:
        return QueueGone(
            f"{self!r} (id {self.id}) was removed by somebody: open or create it again"
        )

    def denied(self) -> QueueDenied:
        return QueueDenied(
            f"{self!r} does not let this user do that: see `ipcs -q` for its owner and mode"
        )

    def no_room(self, data_bytes: int) -> QueueFull | MessageTooBig:
        # An owner can make a queue smaller than the kernel's largest message: what does not
        # fit into an empty queue never will.
        try:
            if data_bytes > self.bytes_max:
                return MessageTooBig(
                    f"{data_bytes} bytes never fit into {self!r}: {self.bytes_max} in all"
                )
        except QueueDenied:  # a user who may only write cannot ask
            pass
        return QueueFull(
            f"{self!r} is full: let its reader catch up, or raise kernel.msgmnb before it is made"
        )

    def _may_go_on(self, error: Exception, mtype: int, data_bytes: int) -> None:
        """Return if the call that gave *error* is to be made again, else raise what it means."""
        code = error.errno if isinstance(error, OSError) else None
        if data_bytes > self.message_bytes_max or code == errno.EINVAL:
            self._measure_again(data_bytes)
        elif code == errno.E2BIG:
            # Sent when kernel.msgmax was larger than at our opening (or than it is now).
            self._enlarge(2 * self.message_bytes_max)
        elif isinstance(error, OverflowError | ValueError):
            raise ValueError(f"{mtype} is no message type: 1 .. {LARGEST_TYPE}") from None
        elif isinstance(error, sysv_ipc.ExistentialError):
            raise self.gone() from None
        elif isinstance(error, sysv_ipc.PermissionsError):
            raise self.denied() from None
        elif type(error) is not sysv_ipc.Error:
            raise QueueError(f"{self!r}: {error}") from error
        # sysv_ipc.Error itself is EINTR: Python runs the signal's handler as we return.

    def _measure_again(self, data_bytes: int) -> None:
        """Tell the three cases apart in which a message cannot be sent as it is.

        msgsnd says EINVAL both of a removed queue and of a message beyond kernel.msgmax, and
        that limit may have been changed since the handle was opened.
        """
        limit = message_bytes_max()
        if data_bytes > limit:
            raise MessageTooBig(
                f"{data_bytes} bytes are too many for {self!r}: kernel.msgmax is {limit}"
            )
        if data_bytes <= self.message_bytes_max:
            raise self.gone()
        self._enlarge(limit)

    def _enlarge(self, message_bytes: int) -> None:
        try:
            handle = _get(self.key, 0, 0, message_bytes)
        except QueueGone:
            raise self.gone() from None
        if handle.id != self.id:  # removed, and made again by another program
            raise self.gone()
        self._use(handle, message_bytes)

    def _use(self, handle: sysv_ipc.MessageQueue, message_bytes: int) -> None:
        self._handle = handle
        self._send: Callable[[bytes, bool, int], None] = handle.send
        self._receive: Callable[[bool, int], tuple[bytes, int]] = handle.receive
        self.message_bytes_max = message_bytes


def _checked_key(key: int) -> int:
    """The key as the kernel's key_t: signed 32 bits; `ipcs` and config files show it unsigned."""
    if not -(2**31) <= key < 2**32:
        raise ValueError(f"{key} is no queue key: 32 bits")
    if key == IPC_PRIVATE:
        raise ValueError("key 0 is IPC_PRIVATE, a queue that nobody else can open")
    return key - 2**32 if key >= 2**31 else key


def _get(key: int, flags: int, mode: int, message_bytes_max: int) -> sysv_ipc.MessageQueue:
    try:
        return sysv_ipc.MessageQueue(key, flags, mode, message_bytes_max)
    except sysv_ipc.ExistentialError:
        if flags:
            raise QueueExists(
                f"queue {label(key)} exists already: open it, or remove it (ipcrm -Q {label(key)})"
            ) from None
        raise QueueGone(f"there is no queue {label(key)}: start its owner, or create it") from None
    except sysv_ipc.PermissionsError:
        raise QueueDenied(
            f"queue {label(key)} is not for this user: see `ipcs -q` for its owner and mode"
        ) from None
    except OSError as error:
        raise _refused(key, error) from error


def _refused(key: int, error: OSError) -> QueueError:
    if error.errno in (errno.EPERM, errno.ENOSYS):
        return QueueDenied(
            "the kernel allows no SysV queues here (a seccomp filter, as systemd's ~@ipc?):"
            f" queue {label(key)}: {error}"
        )
    if error.errno is None:  # sysv_ipc's way of saying ENOSPC
        return QueueError(
            f"no room for queue {label(key)}: as many queues as kernel.msgmni allows exist;"
            " remove dead ones (ipcs -q, ipcrm) or raise it"
        )
    return QueueError(f"queue {label(key)}: {error}")
