"""Why an app did not come up, for a person: where and what first, then its own frames."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from procd.errors import ProcdError

_OURS = str(Path(__file__).parent.parent) + "/"
FAILURE_BYTES = 60_000  # of a text that is reported
MOST_CHAINED = 20


def explain(error: BaseException, chdir: Path) -> str:
    """Return `FILE:LINE: Error: what it says`, and below it the traceback of the app's own frames.

    Other frames are left out, but for the one that raised.
    """
    if isinstance(error, ProcdError):
        return str(error)
    if isinstance(error, SystemExit):
        error = ProcdError(f"the app called sys.exit({error.code!r})").with_traceback(
            error.__traceback__
        )
    told = traceback.TracebackException.from_exception(error)
    for part in _chain(told):
        frames = [frame for frame in part.stack if not _is_machinery(frame.filename)]
        part.stack[:] = [f for f in frames if f is frames[-1] or _is_below(f.filename, chdir)]
    place = place_of(error, chdir)
    what = "".join(told.format_exception_only()).strip().splitlines()
    head = f"{place}: {what[-1]}" if place and what else ""
    text = f"{head}\n{''.join(told.format()).strip()}".strip()
    return text if len(text) < FAILURE_BYTES else f"{head}\n...{text[-FAILURE_BYTES // 4 :]}"


def place_of(error: BaseException, chdir: Path, *, column: bool = False) -> str:
    """Return FILE:LINE (or FILE:LINE:COL) of the app's own last frame; "" if it has none."""
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno or 1}"
        return f"{where}:{error.offset or 1}" if column else where
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_below(frame.filename, chdir) and not _is_machinery(frame.filename):
            where = f"{frame.filename}:{frame.lineno or 1}"
            return f"{where}:{(frame.colno or 0) + 1}" if column else where
    return ""


def _chain(told: traceback.TracebackException) -> list[traceback.TracebackException]:
    chain: list[traceback.TracebackException] = []
    step: traceback.TracebackException | None = told
    while step is not None and len(chain) < MOST_CHAINED:
        chain.append(step)
        step = step.__cause__ or step.__context__
    return chain


def _is_machinery(filename: str) -> bool:
    return filename.startswith((_OURS, "<frozen importlib")) or "/importlib/" in filename


def _is_below(filename: str, chdir: Path) -> bool:
    homes = {str(chdir), os.path.realpath(chdir)}
    return any(filename.startswith(f"{home.rstrip('/')}/") for home in homes)
