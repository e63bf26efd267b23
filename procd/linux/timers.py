"""A deadline that the kernel keeps: a signal to this process unless it is put off in time.

timer_create(2) with SIGEV_SIGNAL on CLOCK_MONOTONIC. It needs nobody's loop to turn: a
process that is stuck in C code, or holds the GIL, gets the signal all the same. Not
inherited over fork.
"""

from __future__ import annotations

import ctypes
import os

_CLOCK_MONOTONIC = 1
_SIGEV_SIGNAL = 0

_libc = ctypes.CDLL(None, use_errno=True)


class _Sigevent(ctypes.Structure):
    _fields_ = (
        ("sigev_value", ctypes.c_void_p),
        ("sigev_signo", ctypes.c_int),
        ("sigev_notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),  # struct sigevent has 64 bytes
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Deadline:
    """put_off() within *seconds* again and again, or *signum* comes."""

    def __init__(self, seconds: float, signum: int) -> None:
        """Raises OSError. The time begins with the first put_off()."""
        self.seconds = seconds
        self._timer = ctypes.c_void_p()
        event = _Sigevent(None, signum, _SIGEV_SIGNAL, b"")
        if _libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def put_off(self) -> None:
        """Start the time anew."""
        self._set(self.seconds)

    def cancel(self) -> None:
        """No signal any more."""
        self._set(0)

    def _set(self, seconds: float) -> None:
        whole = int(seconds)
        value = _Timespec(whole, int((seconds - whole) * 1e9))
        spec = _Itimerspec(_Timespec(0, 0), value)
        if _libc.timer_settime(self._timer, 0, ctypes.byref(spec), None):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
