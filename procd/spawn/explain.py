"""Why an app did not come up, for a person: where and what first, then its own frames."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from procd.errors import ProcdError
from procd.spawn.territory import Territory

_OURS = str(Path(__file__).parent.parent) + "/"
FAILURE_BYTES = 60_000  # of a text that is reported
HEAD_CHARACTERS = 500  # of its first line, which stands in lines of the log and on the status page
MOST_CHAINED = 20


def explain(error: BaseException, chdir: Path, *, column: bool = False, elsewhere: str = "") -> str:
    """Return `FILE:LINE: Error: what it says`, and below it the traceback of the app's own frames.

    Other frames are left out, but for the one that raised. *column*: FILE:LINE:COL;
    *elsewhere*: where it is if no line of the app is to blame.
    """
    app = Territory(str(chdir))
    place = _place(error, app, column=column)
    if isinstance(error, ProcdError) and not place:
        return _headed(elsewhere, str(error))
    told = traceback.TracebackException.from_exception(error)
    for part in _parts(told, MOST_CHAINED):
        last = part.stack[-1] if part.stack else None
        frames = [frame for frame in part.stack if not _is_machinery(frame.filename)]
        part.stack[:] = [f for f in frames if f is last or _is_own(f.filename, app)]
    head = _headed(place or elsewhere, _said(error, told))[:HEAD_CHARACTERS]
    trace = "".join(told.format()).strip("\n")
    text = head if trace == head else f"{head}\n{trace}"
    data = text.encode(errors="backslashreplace")
    if len(data) > FAILURE_BYTES:
        text = f"{head}\n...{data[-FAILURE_BYTES // 4 :].decode(errors='ignore')}"
    return text


def _headed(place: str, text: str) -> str:
    return f"{place}: {text}" if place else text


def _said(error: BaseException, told: traceback.TracebackException) -> str:
    """Return `Error: what it says`; of a text of several lines the first one."""
    if isinstance(error, SystemExit):
        return (
            f"SystemExit: the app called sys.exit({'' if error.code is None else repr(error.code)})"
        )
    for entry in told.format_exception_only():
        if not entry.startswith(" "):  # a SyntaxError's are its file, line and mark
            return entry.strip().partition("\n")[0]
    return type(error).__name__


def _place(error: BaseException, app: Territory, *, column: bool) -> str:
    """Return FILE:LINE (or FILE:LINE:COL) of the app's own last frame; "" if there is none.

    Where the error has none, what it came of may have one.
    """
    step: BaseException | None = error
    for _ in range(MOST_CHAINED):
        if step is None:
            break
        if isinstance(step, SyntaxError) and os.path.isabs(step.filename or ""):
            where = f"{step.filename}:{step.lineno or 1}"
            return f"{where}:{step.offset or 1}" if column else where
        for frame in reversed(traceback.extract_tb(step.__traceback__)):
            if _is_own(frame.filename, app) and not _is_machinery(frame.filename):
                where = f"{frame.filename}:{frame.lineno or 1}"
                return f"{where}:{(frame.colno or 0) + 1}" if column else where
        step = step.__cause__ or step.__context__
    return ""


def _parts(told: traceback.TracebackException, most: int) -> Iterator[traceback.TracebackException]:
    """Yield an error, what it came of, and those of a group."""
    step: traceback.TracebackException | None = told
    while step is not None and most > 0:
        most -= 1
        yield step
        for member in step.exceptions or ():
            yield from _parts(member, most)
        step = step.__cause__ or step.__context__


def _is_machinery(filename: str) -> bool:
    return filename.startswith((_OURS, "<frozen importlib")) or "/importlib/" in filename


def _is_own(filename: str, app: Territory) -> bool:
    # <string> and its like lie nowhere, whatever folder this process is in
    return os.path.isabs(filename) and app.owns(os.path.dirname(filename))
