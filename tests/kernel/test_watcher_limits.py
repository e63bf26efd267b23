"""Where the kernel's patience ends: lost events, no watch left, too much to look at."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import inotify_simple
import pytest

from procd.master import watcher as room
from procd.master.watcher import Changes, Watcher
from tests.kernel.forked import as_nobody, needs_root, outcome

NOTHING = Changes()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    for name in ("app.py", "pkg/models.py"):
        (tmp_path / name).write_text("x = 1\n")
    return tmp_path


@pytest.fixture
def watcher(app: Path) -> Iterator[Watcher]:
    watcher = Watcher([app], (), poll=False)
    watcher.watch({f"{app}/app.py", f"{app}/pkg/models.py"})
    yield watcher
    watcher.close()


def test_lost_events_mean_everything(app: Path, watcher: Watcher) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    for _ in range(limit // 2 + 1):  # equal events in a row are one to the kernel
        os.utime(app / "app.py")
        os.utime(app / "pkg")
    (app / "new").mkdir()  # what the queue has no room for

    assert watcher.read().everything
    (app / "pkg" / "models.py").write_text("x = 3\n")
    assert watcher.read().candidates == {str(app / "pkg" / "models.py")}


def test_no_watch_left_means_polling(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = watcher.fd

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(inotify_simple.INotify, "add_watch", refuse)
    watcher.watch({"/srv/other/app.py"})

    assert watcher.polls
    assert watcher.fd == -1
    assert "fs.inotify.max_user_watches" in watcher.why_polling
    os.fstat(fd)  # the selector may still hold it
    assert watcher.read() == NOTHING


def test_polling_that_was_asked_for_opens_nothing(app: Path) -> None:
    watcher = Watcher([app], (), poll=True)

    watcher.watch({str(app / "app.py")})

    assert (watcher.fd, watcher.polls) == (-1, True)
    assert "watch_poll" in watcher.why_polling
    assert watcher.read() == NOTHING
    watcher.close()


def test_descriptors_are_given_back(app: Path) -> None:
    before = os.listdir("/proc/self/fd")
    watcher = Watcher([app], (), poll=False)
    watcher.watch({str(app / "app.py")})

    watcher.close()

    assert os.listdir("/proc/self/fd") == before


def test_glob_over_too_many_folders_means_polling(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_MOST_MATCHES", 20)
    for number in range(20):
        (app / f"part{number}").mkdir()
    watcher = Watcher([app], [f"{app}/**/*.html"], poll=None)

    watcher.watch({f"{app}/app.py"})

    assert watcher.polls
    assert "watch_extra" in watcher.why_polling
    watcher.close()


def test_silent_file_system_means_polling_unless_told_otherwise(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procd.linux.mounts.is_silent", lambda _: True)
    polls = []
    for poll in (None, False):
        watcher = Watcher([app], (), poll)
        watcher.watch({f"{app}/app.py"})
        polls.append((watcher.polls, watcher.why_polling.endswith("change without telling")))
        watcher.close()

    assert polls == [(True, True), (False, False)]


@needs_root
def test_link_in_a_folder_that_may_not_be_read_means_polling(app: Path, tmp_path: Path) -> None:
    (tmp_path / "barred").mkdir(mode=0o711)
    (tmp_path / "barred" / "current").symlink_to(app)
    tmp_path.chmod(0o755)

    def watch() -> str:
        watcher = Watcher([tmp_path / "barred" / "current"], (), poll=False)
        watcher.watch(())
        return watcher.why_polling

    assert outcome(as_nobody(watch)) == repr(f"procd's master may not read {tmp_path}/barred")
