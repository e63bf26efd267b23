"""Which files may have changed: inotify for the master's loop.

The only room that knows inotify_simple. It reads directories and links, never a file's content:
what comes out are suspicions, and the base process hashes them. No threads, no waiting, no walk
without a bound. Directories are watched, not files: editors replace a file, and a file's watch
would go with it.

Each watch stands before the folder is looked into, so a change is either seen there or told later.
Who calls watch() hashes afterwards: what changed before that was told to nobody.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import inotify_simple
from inotify_simple import flags

from procd.linux.mounts import first_silent
from procd.master.interest import Folder, Plan, hides, is_barred, is_below, listing, nearest, plan
from procd.spawn.globs import Globs

_ARRIVED = int(flags.CREATE | flags.MOVED_TO)
_WRITTEN = int(flags.CLOSE_WRITE | flags.ATTRIB)  # ATTRIB: readable again, or a link fewer
_WHOLE = int(flags.CLOSE_WRITE | flags.MOVED_TO)
_WENT = int(flags.IGNORED | flags.UNMOUNT | flags.MOVE_SELF | flags.DELETE_SELF)
_MASK = int(
    _ARRIVED
    | _WRITTEN
    | flags.MOVED_FROM
    | flags.DELETE
    | flags.MOVE_SELF
    | flags.DELETE_SELF
    | flags.ONLYDIR
    | flags.EXCL_UNLINK
)
# Of a folder with nothing in it but turns. Added: a bind mount may show it as one that has more.
_TURNS = _MASK & ~_WRITTEN | int(flags.MASK_ADD)
# There is no such folder now, or no way to it: what stands above it will tell when there is.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES)
# An app may make folders beside its code all day (caches, uploads); they must not eat the limit.
_MOST_HOPES = 512
_MOST_MATCHES = 2_000  # each is looked at in the master's loop
_NOT_CODE = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Changes:
    """What one read() told."""

    candidates: frozenset[str] = frozenset()  # counting paths that may have changed, come or gone
    everything: bool = False  # events were lost, or a folder or link moved: any path may differ
    unknown_py: frozenset[str] = frozenset()  # new or changed Python files that do not count (yet)
    is_whole: bool = False  # each of the candidates was closed, or moved into its place, at last


@dataclass(slots=True)
class _Seen:
    candidates: set[str] = field(default_factory=set)
    everything: bool = False
    unknown_py: set[str] = field(default_factory=set)
    is_stale: bool = False  # the watches are no longer where they should be
    half: set[str] = field(default_factory=set)  # candidates of which more is to be expected


class Watcher:
    """Watches what counts below *roots* and what the globs *extra* match; all paths are absolute.

    *poll*: True and False decide, None is False except where file systems send no events. Where
    watching fails it polls all the same, rather than being blind.

    `fd` is for the selector, -1 while `polls`. watch() and read() may turn `polls` on: then
    unregister the earlier fd, which stays open until close().
    """

    def __init__(
        self,
        roots: Sequence[Path],
        extra: Sequence[str],
        poll: bool | None,  # noqa: FBT001 - three values, not a flag
    ) -> None:
        self.fd = -1
        self.polls = False
        self.why_polling = ""
        self._roots = [str(root) for root in roots]
        self._globs = Globs(extra)
        self._may_be_silent = poll is None
        self._sources: frozenset[str] = frozenset()
        self._folders: dict[int, Folder] = {}  # by watch descriptor
        self._hopes: set[int] = set()  # those of them where nothing counts yet
        self._watched: set[int] = set()  # what the kernel holds for us: these, and some in between
        # else inotify_simple asks ctypes.util.find_library, which starts processes
        inotify_simple._libc = inotify_simple.CDLL(None, use_errno=True)  # noqa: SLF001
        self._inotify: inotify_simple.INotify | None = None
        if poll:
            self._give_up("watch_poll is true")
            return
        try:
            self._inotify = inotify_simple.INotify(nonblocking=True)
            self.fd = self._inotify.fileno()
        except OSError as error:
            self._give_up(f"inotify: {error.strerror}, see fs.inotify.max_user_instances")

    def watch(self, sources: Collection[str], *, searching: bool = False) -> None:
        """Watch the folders of *sources*, the files that count from now on.

        *searching*: the last reload was refused, perhaps for want of a module. Then every folder
        below the roots that looks like code is watched too (the nearest _MOST_HOPES), for
        `unknown_py`.
        """
        self._sources = frozenset(sources)
        if self.polls:
            return
        if not searching:
            self._hopes.clear()
        self._place()
        if searching:
            for root in self._roots:
                self._adopt(os.path.realpath(root), root, _Seen())

    def read(self) -> Changes:
        """Return what the pending events mean; never waits, never raises."""
        seen = _Seen()
        if self._inotify is not None:
            for event in self._inotify.read(timeout=0):
                self._note(event, seen)
        if seen.is_stale and not self.polls:
            self._place()
        return Changes(
            frozenset(seen.candidates),
            seen.everything,
            frozenset(seen.unknown_py - self._sources),
            is_whole=bool(seen.candidates) and not (seen.half or seen.everything),
        )

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        self._inotify, self.fd = None, -1

    # ------------------------------------------------------------ what an event means

    def _note(self, event: inotify_simple.Event, seen: _Seen) -> None:
        if event.mask & flags.Q_OVERFLOW:
            seen.everything = seen.is_stale = True
        folder = self._folders.get(event.wd)
        if folder is None:
            return  # of a watch that was given up meanwhile
        if event.mask & _WENT:
            self._note_gone(folder, event, seen)
        elif event.name in folder.turns or not event.name:  # that is the folder's own mode
            seen.everything = seen.is_stale = True
        elif event.name:
            self._note_name(folder, event, seen)

    def _note_gone(self, folder: Folder, event: inotify_simple.Event, seen: _Seen) -> None:
        if event.wd not in self._hopes:
            seen.everything = seen.is_stale = True
        elif event.mask & flags.MOVE_SELF and self._add_watch(folder.path) != event.wd:
            self._drop(event.wd)  # moved away; if moved within, _adopt() knows its new path
        if event.mask & flags.IGNORED:  # the folder is no more
            self._drop(event.wd)

    def _note_name(self, folder: Folder, event: inotify_simple.Event, seen: _Seen) -> None:
        path = os.path.join(folder.path, event.name)
        has_arrived = bool(event.mask & _ARRIVED)
        if counting := folder.files.get(event.name):
            seen.candidates |= counting
            if event.mask & _WHOLE:
                seen.half -= counting
            else:
                seen.half |= counting
            # a link in a file's place: what it points at is to be watched
            seen.is_stale |= has_arrived and os.path.islink(path)
        is_folder = event.mask & flags.ISDIR or (
            has_arrived and not counting and os.path.isdir(path)
        )
        for alias in sorted(folder.aliases):
            named = os.path.join(alias, event.name)
            if not is_folder:
                self._note_file(named, seen, is_here=bool(event.mask & (_ARRIVED | _WRITTEN)))
            elif has_arrived and self._is_hopeful(named):
                self._adopt(path, named, seen)

    def _note_file(self, path: str, seen: _Seen, *, is_here: bool) -> None:
        if self._globs.matches(path) or hides(path, self._sources):
            seen.candidates.add(path)
        name = os.path.basename(path)
        if is_here and name.endswith(".py") and not name.startswith(".") and self._is_inside(path):
            seen.unknown_py.add(path)

    def _is_inside(self, path: str) -> bool:
        return any(is_below(path, root) for root in self._roots)

    # ------------------------------------------------------------ where the watches stand

    def _place(self) -> None:
        """Make the watches those of the sources and globs, and of the hopes that still stand."""
        for _ in range(_TRIES):
            found = self._globs.look(_MOST_MATCHES)
            if max(len(found.folders), len(found.files)) >= _MOST_MATCHES:
                self._give_up(f"watch_extra is more than {_MOST_MATCHES} folders or files")
                return
            # files of globs too, by name: each may be a link
            files = {*self._sources, *found.files}
            if self._stand(plan(files, [*self._roots, *found.folders], self._roots)):
                return

    def _stand(self, wanted: Plan) -> bool:
        """Watch what *wanted* says, and only that; say whether nothing moved meanwhile."""
        folders: dict[int, Folder] = {}
        lost = []
        # A parent's path is shorter than its child's: its watch stands when the child is looked up.
        for path in sorted(wanted.folders, key=len):
            folder = wanted.folders[path]
            if (wd := self._add_watch(path, _MASK if folder.has_counting else _TURNS)) is not None:
                folders.setdefault(wd, Folder(path)).add(folder)
            elif self.polls:
                return True
            else:
                lost.append(path)
        self._check(wanted, lost)
        if self.polls:
            return True
        self._hopes -= folders.keys()
        self._folders = folders | {wd: self._folders[wd] for wd in self._hopes}
        for wd in self._watched - self._folders.keys():
            self._forget(wd)
        standing = wanted.folders.keys() - set(lost)
        return wanted.is_current() and all(
            is_barred(path) or nearest(path) in standing for path in lost
        )

    def _check(self, wanted: Plan, lost: Sequence[str]) -> None:
        """Poll if a folder that matters cannot be watched, or if its file system may be silent."""
        with_links = {os.path.dirname(path) for path in wanted.links}
        for path in lost:
            # above a root that is no link, MOVE_SELF on the root tells enough
            if (wanted.folders[path].aliases or path in with_links) and is_barred(path):
                self._give_up(f"procd's master may not read {path}")
                return
        if not self._may_be_silent:
            return
        holding = (path for path, folder in wanted.folders.items() if folder.has_counting)
        if (silent := first_silent(holding)) is not None:
            self._give_up("{} is on {}, which may change without telling".format(*silent))

    def _is_hopeful(self, folder: str) -> bool:
        """Say whether a new *folder* may come to hold what counts."""
        if self._globs.leads(folder):
            return True
        name = os.path.basename(folder)
        is_code = not name.startswith(".") and name not in _NOT_CODE and self._is_inside(folder)
        return is_code and not os.path.exists(os.path.join(folder, "pyvenv.cfg"))

    def _adopt(self, path: str, alias: str, seen: _Seen) -> None:
        """Watch a folder and those below it, and note what they hold already."""
        todo = deque([(path, alias)])  # breadth first: the near ones before the limit
        met = set()
        while todo and len(self._hopes) < _MOST_HOPES:
            path, alias = todo.popleft()
            wd = self._add_watch(path)
            if self.polls:
                seen.everything = True
                return
            if wd is None or wd in met:
                continue
            met.add(wd)
            if wd not in self._folders or wd in self._hopes:
                self._folders[wd] = Folder(path, aliases={alias})
                self._hopes.add(wd)
            seen.is_stale |= self._globs.leads(alias)
            for name, is_folder in listing(path):
                named = os.path.join(alias, name)
                if not is_folder:
                    self._note_file(named, seen, is_here=True)
                elif self._is_hopeful(named):
                    todo.append((os.path.join(path, name), named))

    def _add_watch(self, path: str, mask: int = _MASK) -> int | None:
        """Return the watch descriptor of the folder, the same one if it is watched already."""
        if self._inotify is None:
            return None
        try:
            wd = int(self._inotify.add_watch(path, mask))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._give_up(f"no watch left for {path}: raise fs.inotify.max_user_watches")
            elif error.errno not in _ABSENT:
                self._give_up(f"{path}: {error.strerror}")
            return None
        self._watched.add(wd)
        return wd

    def _drop(self, wd: int) -> None:
        self._folders.pop(wd, None)
        self._hopes.discard(wd)
        self._forget(wd)

    def _forget(self, wd: int) -> None:
        self._watched.discard(wd)
        if self._inotify is not None:
            with suppress(OSError):  # the kernel was faster: its folder is gone
                self._inotify.rm_watch(wd)

    def _give_up(self, why: str) -> None:
        """Leave the watching to the poller. The fd stays open, but nothing will come out of it."""
        self.polls, self.why_polling, self.fd = True, why, -1
        for wd in tuple(self._watched):
            self._forget(wd)
        self._folders = {}
        self._hopes = set()
