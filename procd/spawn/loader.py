"""How an app is imported so that what runs is exactly what was hashed.

Every source of the app is read once, hashed, reported, and compiled from the very bytes that were
hashed, or taken from a cache keyed by that hash. No .pyc of an app is ever read or written: its
key, mtime in seconds and size, is the same for two saves within a second.

App code is what lies below `chdir`, but for virtual environments, site-packages, the interpreter
and procd itself: those keep Python's own import. Sources inside a zip file are not seen.

Two hooks do it. A path hook gives each folder of the app a FileFinder that knows no .pyc and finds
pinned files that the disk has lost. SourceFileLoader.get_code is replaced, not overridden in a
subclass: so plugins loaded by spec_from_file_location, and import hooks that bring a loader of
their own (typeguard), are app code as well, and a module's loader is of the type they expect.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType

from procd.errors import ProcdError
from procd.spawn.codecache import CodeCache
from procd.spawn.sources import digest as digest_files
from procd.spawn.territory import Territory

_log = logging.getLogger("procd.loader")


class AppNotFound(ProcdError):
    """The config's `app` names a file, module or attribute that does not exist."""


class Loader:
    """Imports one app below *chdir* into this process.

    *cache_dir* keeps compiled code, None keeps none. *on_source*(path, sha256 hex) is told of each
    source before it is compiled, also of those imported later; it may be replaced after a fork.
    *pinned* (path → sha256 hex) names sources that are taken from the cache whatever the disk says:
    a generation is reborn from them.
    """

    def __init__(
        self,
        chdir: Path,
        cache_dir: Path | None,
        on_source: Callable[[str, str], None],
        pinned: Mapping[str, str] | None = None,
    ) -> None:
        self.on_source = on_source
        self._chdir = os.path.abspath(chdir)
        self.territory = Territory(self._chdir)
        self._cache = CodeCache(cache_dir)
        self._pinned = self._usable(pinned or {})
        self._pinned_folders = {
            str(folder) for path in self._pinned for folder in Path(path).parents
        }
        self._named: set[str] = set()  # app files named outright: code wherever they lie

    def install(self) -> None:
        """Make this loader the process's way to import app code. Once a process, before load()."""
        for path in [path for path in sys.path_importer_cache if self.territory.has_below(path)]:
            del sys.path_importer_cache[path]
        importlib.invalidate_caches()  # the listings of a process that was forked long ago are old
        sys.path_hooks.insert(0, self._finder)
        sys.path[:] = [self._chdir, *(path for path in sys.path if path != self._chdir)]
        plain = SourceFileLoader.get_code

        @functools.wraps(plain)
        def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
            path = loader.get_filename(fullname)
            return self._code(loader, path) if self._owns(path) else plain(loader, fullname)

        setattr(SourceFileLoader, "get_code", get_code)  # noqa: B010 - mypy refuses the plain way

    def load(self, spec: str) -> object:
        """Import "module:attribute" or "path/to/file.py:attribute" and return the attribute.

        Raises AppNotFound if the module's file or the attribute does not exist. What the app itself
        raises while it is imported comes through untouched.
        """
        name, _, attribute = spec.rpartition(":")
        if not name or not attribute:
            raise AppNotFound(f"app: {spec!r} is not module:attribute or path/to/file.py:attribute")
        is_file = "/" in name or name.endswith(".py")
        module = self._load_file(name) if is_file else self._load_module(name)
        found: object = module
        for step in attribute.split("."):
            try:
                found = getattr(found, step)
            except AttributeError as error:
                where = _place_of(module)
                raise AppNotFound(f"app: {spec!r} is not in {where}: {error}") from error
        return found

    def rehearse(self, path: str) -> None:
        """Read, hash, compile and run *path* as if it were a source of the app; keep nothing."""
        importlib.invalidate_caches()
        loader = SourceFileLoader("rehearsal", path)
        spec = importlib.util.spec_from_file_location("rehearsal", path, loader=loader)
        if spec is not None:
            digest = hashlib.sha256(loader.get_data(path)).hexdigest()
            self._cache.get(path, digest)
            code = loader.source_to_code(loader.get_data(path), path)
            exec(code, importlib.util.module_from_spec(spec).__dict__)  # noqa: S102 - our own

    # ------------------------------------------------------------ modules

    def _load_module(self, name: str) -> ModuleType:
        above: ModuleType | None = None
        for end in range(1, name.count(".") + 2):
            part = ".".join(name.split(".")[:end])
            if part not in sys.modules:
                if above is not None and not hasattr(above, "__path__"):
                    raise AppNotFound(f"app: no module {part}: {_place_of(above)} is no package")
                if importlib.util.find_spec(part) is None:
                    where = self._chdir if above is None else _place_of(above)
                    raise AppNotFound(f"app: no module {part} in {where}")
            above = importlib.import_module(part)
        assert above is not None  # noqa: S101 - a name has at least one part
        return above

    def _load_file(self, name: str) -> ModuleType:
        path = str(Path(self._chdir) / name)  # "./" goes, ".." stays: it may follow a link
        if not os.path.isfile(path) and path not in self._pinned:
            raise AppNotFound(f"app: no file {path}")
        stem = Path(path).stem
        if (held := sys.modules.get(stem)) is not None:
            if getattr(held, "__file__", None) == path:
                return held
            raise AppNotFound(
                f"app: {path} would take the place of the module {stem} ({_place_of(held)}), "
                "which is imported already: rename it"
            )
        self._named.add(path)
        loader = SourceFileLoader(stem, path)
        spec = ModuleSpec(stem, loader, origin=path)
        spec.has_location = True
        module = importlib.util.module_from_spec(spec)
        sys.modules[stem] = module
        try:
            loader.exec_module(module)
        except BaseException:
            sys.modules.pop(stem, None)
            raise
        return module

    # ------------------------------------------------------------ code

    def _owns(self, path: str) -> bool:
        return path in self._named or self.territory.owns(os.path.dirname(path))

    def _code(self, loader: SourceFileLoader, path: str) -> CodeType:
        """Return the code of the source at *path*, after its hash has been reported."""
        seen = _absolute(path)
        if (pinned := self._pinned.get(seen)) is not None:
            if (code := self._cache.get(path, pinned)) is not None:
                self.on_source(seen, pinned)
                return code
            _log.warning("pinned code is damaged, read from disk path=%s", seen)
        data = SourceFileLoader.get_data(loader, path)
        digest = hashlib.sha256(data).hexdigest()
        self.on_source(seen, digest)
        if _transforms(loader):
            return loader.source_to_code(loader.get_data(path), path)
        if (code := self._cache.get(path, digest)) is None:
            code = _compiled(loader, data, path)
            self._cache.put(path, digest, code)
        return code

    def _report_extension(self, path: str) -> None:
        seen = _absolute(path)
        if (digest := digest_files([seen])[seen]) is not None:
            self.on_source(seen, digest)

    def _usable(self, pinned: Mapping[str, str]) -> dict[str, str]:
        """Return those of *pinned* that the cache holds; never those of extensions."""
        sources = {p: digest for p, digest in pinned.items() if p.endswith(tuple(SOURCE_SUFFIXES))}
        usable = {p: digest for p, digest in sources.items() if self._cache.has(p, digest)}
        if missing := sorted(sources.keys() - usable.keys()):
            _log.warning("pinned code is not in the cache, read from disk paths=%s", missing)
        return usable

    # ------------------------------------------------------------ finding

    def _finder(self, path: str) -> FileFinder:
        """Return the finder for a folder of the app (a path hook)."""
        if not self.territory.owns(path):
            raise ImportError("no folder of the app", path=path)
        if not os.path.isdir(path) and path not in self._pinned_folders:
            raise ImportError("no folder", path=path)
        return _Finder(path, self._pinned_spec, _reporting(self._report_extension))

    def _pinned_spec(self, fullname: str, folder: str) -> ModuleSpec | None:
        """Return the spec of a module in *folder* that is pinned, whatever lies there by now."""
        base = os.path.join(folder, fullname.rpartition(".")[2])
        for path, inside in ((f"{base}/__init__.py", [base]), (f"{base}.py", None)):
            if path in self._pinned:
                return importlib.util.spec_from_file_location(
                    fullname,
                    path,
                    loader=SourceFileLoader(fullname, path),
                    submodule_search_locations=inside,
                )
        if base in self._pinned_folders and not os.path.exists(base):
            spec = ModuleSpec(fullname, None, is_package=True)  # a portion of a namespace package
            spec.submodule_search_locations = [base]
            return spec
        return None


class _Finder(FileFinder):
    """Finds what is pinned, then extensions and sources; never a .pyc, with or without a source."""

    def __init__(
        self,
        path: str,
        pinned_spec: Callable[[str, str], ModuleSpec | None],
        extension_loader: type[ExtensionFileLoader],
    ) -> None:
        super().__init__(
            path, (extension_loader, EXTENSION_SUFFIXES), (SourceFileLoader, SOURCE_SUFFIXES)
        )
        self._pinned_spec = pinned_spec

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        return self._pinned_spec(fullname, self.path) or super().find_spec(fullname, target)


def _reporting(report: Callable[[str], None]) -> type[ExtensionFileLoader]:
    """Return a loader of extension modules that reports each file before it is mapped."""

    class Reporting(ExtensionFileLoader):
        def create_module(self, spec: ModuleSpec) -> ModuleType:
            report(self.path)
            return super().create_module(spec)

    return Reporting


def _transforms(loader: SourceFileLoader) -> bool:
    """Say whether an import hook makes other code of the source than Python does: never cached."""
    kind = type(loader)
    return (
        kind.source_to_code is not SourceFileLoader.source_to_code
        or kind.get_data is not SourceFileLoader.get_data
    )


def _absolute(path: str) -> str:
    # not os.path.abspath: that would cut a ".." which may lead through a link
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _compiled(loader: SourceFileLoader, data: bytes, path: str) -> CodeType:
    try:
        return loader.source_to_code(data, path)
    except SyntaxError as error:
        error.filename = error.filename or path  # Python names no file where it met a zero byte
        raise


def _place_of(module: ModuleType) -> str:
    """Return the file of *module*, or its folders, for a message."""
    file = getattr(module, "__file__", None)
    return file or ", ".join(getattr(module, "__path__", ())) or "the interpreter"
