"""Why an app did not come up, for a person: its own frames, without procd's."""

from __future__ import annotations

import traceback
from pathlib import Path

from procd.errors import ProcdError

_OURS = str(Path(__file__).parent.parent) + "/"
FAILURE_BYTES = 60_000  # of a traceback that is reported


def explain(error: BaseException) -> str:
    """Return why the app did not come up, for a person: its own frames, without procd's."""
    if isinstance(error, ProcdError):
        return str(error)
    if isinstance(error, SystemExit):
        error = ProcdError(f"the app called sys.exit({error.code!r})").with_traceback(
            error.__traceback__
        )
    told = traceback.TracebackException.from_exception(error)
    for part in _chain(told):
        part.stack[:] = [frame for frame in part.stack if not _is_machinery(frame.filename)]
    text = "".join(told.format()).strip()
    return text if len(text) < FAILURE_BYTES else "..." + text[-FAILURE_BYTES // 4 :]


def _chain(told: traceback.TracebackException) -> list[traceback.TracebackException]:
    chain: list[traceback.TracebackException] = []
    step: traceback.TracebackException | None = told
    while step is not None and len(chain) < 20:
        chain.append(step)
        step = step.__cause__ or step.__context__
    return chain


def _is_machinery(filename: str) -> bool:
    return filename.startswith((_OURS, "<frozen importlib")) or "/importlib/" in filename
