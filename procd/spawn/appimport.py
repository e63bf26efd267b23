"""Importing the app into this process: from the disk, or from the sources of its generation.

What it imported is known by hashes, for the watch and for a rebirth; what it used of others,
for the base; and whether anything may be forked from this process afterwards.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

from procd.app import Server
from procd.config.schema import Config
from procd.errors import ProcdError
from procd.spawn import allowance, manifest
from procd.spawn.fitness import inspected
from procd.spawn.loader import Loader
from procd.spawn.preload import said, unhide, used
from procd.spawn.shield import shielded


class AppImport:
    """run() once in a process; then the attributes hold.

    *packages* are those that the base has preloaded.
    """

    def __init__(self, config: Config, code_dir: Path, packages: frozenset[str]) -> None:
        self.server = Server()  # the app's, once it is imported
        self.sources: dict[str, str] = {}  # path → sha256 hex; of one that failed, as far as it got
        self.unfit = ""  # why nothing should be forked from here any more
        self._config = config
        self._code_dir = code_dir
        self._packages = packages
        self._loader: Loader | None = None
        self._modules = 0  # those that were told, or were there before the app

    def run(self, generation: int, *, is_reborn: bool) -> None:
        """Import the app; what it raises comes through. Raises ProcdError if it is none.

        *is_reborn*: from the very sources that its generation was imported from at first.
        A new one needs an allowance as its config says: raises ProcdError if that was refused.
        """
        if not is_reborn:
            allowance.check()
        os.chdir(self._config.chdir)  # resolved anew: a symlinked release may have moved
        pinned = manifest.read(self._code_dir, generation) if is_reborn else None
        loader = Loader(self._config.chdir, self._code_dir, self.sources.__setitem__, pinned)
        self._loader = loader
        with shielded():
            loader.install()
            unhide(self._packages, loader.territory)
            self._modules = len(sys.modules)
            with inspected(self._config.app) as inspection:
                app = loader.load(self._config.app)
        self.server = checked(app, self._config.app)
        if inspection.changes:
            self.unfit = said(inspection.unfit())
        if not is_reborn:
            manifest.keep(self._code_dir, generation, self.sources)

    def tell_later_sources(self, on_source: Callable[[str, str], None]) -> None:
        """Have *on_source*(path, sha256 hex) called for each that is imported from now on."""
        if self._loader is not None:
            self._loader.on_source = on_source

    def new_modules(self) -> dict[str, str]:
        """Return what was imported since the last call and is not the app's: name → file."""
        if self._loader is None:
            return {}
        found = used(self._modules, self._loader.territory)
        self._modules = len(sys.modules)
        return found


def rehearse(code_dir: Path) -> None:
    """Do once what an import does, to nothing: later it finds the pages that it writes its own.

    The first write to each page of a forked process has the kernel copy that page.
    """
    sources: dict[str, str] = {}
    with shielded(), inspected("nothing"):
        loader = Loader(Path.cwd(), code_dir, sources.__setitem__)
        loader.rehearse(__file__)
        unhide(frozenset(), loader.territory)
    used(len(sys.modules) - 1, loader.territory)
    gc.collect(0)


def checked(app: object, spec: str) -> Server:
    """Return the app; raises ProcdError if it is no Server."""
    if not isinstance(app, Server):
        raise ProcdError(f"app: {spec!r} is a {type(app).__name__}, not a procd.Server")
    return app
