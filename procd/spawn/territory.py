"""Where app code lies: below chdir, but for what others brought there.

Judged by names, as Python uses them (unresolved), and also by the resolved chdir, since an app may
put os.getcwd() or a realpath on sys.path. Remembers its judgements: a folder does not become a
virtual environment under a running import.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOREIGN_NAMES = frozenset({"site-packages", "dist-packages"})  # pip's
_PROCD = Path(__file__).parents[1]


class Territory:
    """The app's own folders, for one absolute *chdir*."""

    def __init__(self, chdir: str) -> None:
        self._homes = tuple(dict.fromkeys((os.path.normpath(chdir), os.path.realpath(chdir))))
        places = {str(_PROCD), os.path.dirname(os.__file__)}
        places |= {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
        places |= {os.path.realpath(place) for place in places}
        # An app may live below a prefix: /usr/src/app, or inside its own virtual environment.
        self._foreign = tuple(
            place for place in places if not any(_is_below(home, place) for home in self._homes)
        )
        self._judged: dict[str, bool] = {}

    def has_below(self, path: str) -> bool:
        """Say whether *path* lies below chdir at all."""
        path = os.path.abspath(path)
        return any(_is_below(path, home) for home in self._homes)

    def owns(self, folder: str) -> bool:
        """Say whether sources in *folder* are the app's own."""
        folder = os.path.abspath(folder)
        if folder not in self._judged:
            self._judged[folder] = any(self._owns(folder, home) for home in self._homes)
        return self._judged[folder]

    def _owns(self, folder: str, home: str) -> bool:
        if not _is_below(folder, home) or any(_is_below(folder, f) for f in self._foreign):
            return False
        step = home
        for part in Path(folder).relative_to(home).parts:
            step = os.path.join(step, part)
            if part in FOREIGN_NAMES or os.path.exists(os.path.join(step, "pyvenv.cfg")):
                return False
        return True


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
