"""Which events reach the master, on real directories.

inotify queues an event before the call that caused it returns, so read() sees it at once.
"""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from procd.master.watcher import Changes, Watcher

Watch = Callable[..., Watcher]
NOTHING = Changes()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """chdir: app.py and a package of two modules."""
    root = tmp_path / "srv" / "app"
    (root / "pkg").mkdir(parents=True)
    for name in ("app.py", "pkg/__init__.py", "pkg/models.py"):
        (root / name).write_text("x = 1\n")
    return root


@pytest.fixture
def watch(app: Path) -> Iterator[Watch]:
    """A watcher of the app's sources, or of others."""
    with ExitStack() as stack:

        def make(
            *sources: Path, root: Path = app, extra: tuple[str, ...] = (), searching: bool = False
        ) -> Watcher:
            watcher = Watcher([root], extra, poll=False)
            stack.callback(watcher.close)
            watcher.watch(
                {str(path) for path in sources or root.rglob("*.py")}, searching=searching
            )
            return watcher

        yield make


def candidates(watcher: Watcher, below: Path) -> set[str]:
    return {os.path.relpath(path, below) for path in watcher.read().candidates}


def unknown(watcher: Watcher, below: Path) -> set[str]:
    return {os.path.relpath(path, below) for path in watcher.read().unknown_py}


def test_save_makes_the_fd_readable_and_names_the_file(app: Path, watch: Watch) -> None:
    watcher = watch()
    assert watcher.read() == NOTHING

    (app / "app.py").write_text("x = 2\n")

    assert select.select([watcher.fd], [], [], 0)[0]
    assert watcher.read() == Changes(candidates=frozenset({str(app / "app.py")}), is_whole=True)
    assert not select.select([watcher.fd], [], [], 0)[0]


def test_fd_is_not_inherited_and_does_not_block(watch: Watch) -> None:
    watcher = watch()

    assert not os.get_inheritable(watcher.fd)
    assert not os.get_blocking(watcher.fd)


def test_editor_that_writes_beside_and_renames(app: Path, watch: Watch) -> None:
    watcher = watch()

    (app / ".app.py.tmp").write_text("x = 2\n")
    (app / ".app.py.tmp").rename(app / "app.py")

    assert candidates(watcher, app) == {"app.py"}


def test_editor_that_moves_the_old_one_to_a_backup(app: Path, watch: Watch) -> None:
    watcher = watch()

    (app / "4913").touch()
    (app / "4913").unlink()
    (app / "app.py").rename(app / "app.py~")
    (app / "app.py").write_text("x = 2\n")

    changes = watcher.read()
    assert changes.candidates == {str(app / "app.py")}
    assert not changes.everything
    (app / "app.py").write_text("x = 3\n")
    assert candidates(watcher, app) == {"app.py"}


def test_file_deleted_and_back(app: Path, watch: Watch) -> None:
    watcher = watch()

    (app / "pkg" / "models.py").unlink()
    assert candidates(watcher, app) == {"pkg/models.py"}

    (app / "pkg" / "models.py").write_text("x = 2\n")
    assert candidates(watcher, app) == {"pkg/models.py"}


def test_file_that_becomes_readable_again(app: Path, watch: Watch) -> None:
    watcher = watch()

    (app / "app.py").chmod(0o600)

    assert candidates(watcher, app) == {"app.py"}


def test_log_file_beside_the_app_never_counts(app: Path, watch: Watch) -> None:
    watcher = watch()

    for number in range(3):
        with (app / "access.log").open("a") as log:
            log.write(f"{number}\n")
    (app / "access.log").rename(app / "access.log.1")
    (app / "data.json").write_text("{}")
    (app / "__pycache__").mkdir()

    assert watcher.read() == NOTHING


def test_python_file_that_is_not_imported_is_unknown(app: Path, watch: Watch) -> None:
    watcher = watch()

    (app / "pkg" / "later.py").write_text("")
    (app / ".#app.py").symlink_to("me@host")  # Emacs' lock

    changes = watcher.read()
    assert changes.unknown_py == {str(app / "pkg" / "later.py")}
    assert not changes.candidates


def test_folder_moved_away_and_another_moved_in(app: Path, watch: Watch) -> None:
    watcher = watch()
    shutil.copytree(app / "pkg", app / "fresh")
    watcher.read()

    (app / "pkg").rename(app / "away")
    (app / "fresh").rename(app / "pkg")

    assert watcher.read().everything
    (app / "pkg" / "models.py").write_text("x = 3\n")
    assert candidates(watcher, app) == {"pkg/models.py"}
    (app / "away" / "models.py").write_text("x = 4\n")
    assert not watcher.read().candidates


def test_folder_deleted_and_made_again(app: Path, watch: Watch) -> None:
    watcher = watch()

    shutil.rmtree(app / "pkg")
    assert watcher.read().everything
    (app / "pkg").mkdir()
    assert watcher.read().everything

    (app / "pkg" / "models.py").write_text("x = 2\n")
    assert candidates(watcher, app) == {"pkg/models.py"}


def test_chdir_itself_replaced(app: Path, watch: Watch) -> None:
    watcher = watch()
    shutil.copytree(app, app.parent / "next")

    app.rename(app.parent / "previous")
    (app.parent / "next").rename(app)

    assert watcher.read().everything
    (app / "pkg" / "models.py").write_text("x = 3\n")
    assert candidates(watcher, app) == {"pkg/models.py"}


def test_chdir_deleted_with_its_parent_and_cloned_again(app: Path, watch: Watch) -> None:
    watcher = watch()

    shutil.rmtree(app.parent)
    assert watcher.read().everything
    for folder in (app.parent, app, app / "pkg"):
        folder.mkdir()
        assert watcher.read().everything, folder

    (app / "pkg" / "models.py").write_text("x = 2\n")
    assert candidates(watcher, app) == {"pkg/models.py"}


def test_release_switched_by_its_link(app: Path, tmp_path: Path, watch: Watch) -> None:
    releases = tmp_path / "releases"
    for number in ("7", "8"):
        shutil.copytree(app, releases / number)
    current = tmp_path / "current"
    current.symlink_to("releases/7")
    watcher = watch(root=current)

    (tmp_path / "new").symlink_to("releases/8")
    (tmp_path / "new").rename(current)  # ln -sfn, atomically

    assert watcher.read().everything
    (releases / "7" / "app.py").write_text("x = 7\n")
    assert not watcher.read().candidates
    (releases / "8" / "app.py").write_text("x = 8\n")
    assert watcher.read().candidates == {str(current / "app.py")}


def test_link_further_up_and_a_link_to_a_link(app: Path, tmp_path: Path, watch: Watch) -> None:
    releases = tmp_path / "releases"
    for number in ("7", "8"):
        shutil.copytree(app, releases / number / "app")
    (tmp_path / "stable").symlink_to(releases / "7")
    (tmp_path / "current").symlink_to("stable")
    watcher = watch(root=tmp_path / "current" / "app")

    (tmp_path / "stable").unlink()
    (tmp_path / "stable").symlink_to(releases / "8")

    assert watcher.read().everything
    (releases / "8" / "app" / "app.py").write_text("x = 8\n")
    assert watcher.read().candidates == {str(tmp_path / "current" / "app" / "app.py")}


def test_config_map_that_switches_a_link_of_files(tmp_path: Path, watch: Watch) -> None:
    root = tmp_path / "mounted"  # as Kubernetes mounts a ConfigMap
    for version in ("..1", "..2"):
        (root / version).mkdir(parents=True)
        (root / version / "app.py").write_text(f"x = '{version}'\n")
    (root / "..data").symlink_to("..1")
    (root / "app.py").symlink_to("..data/app.py")
    watcher = watch(root / "app.py", root=root)

    (root / "..data_tmp").symlink_to("..2")
    (root / "..data_tmp").rename(root / "..data")
    assert watcher.read().everything

    (root / "..2" / "app.py").write_text("x = 3\n")
    assert watcher.read().candidates == {str(root / "app.py")}


def test_file_that_is_a_link_is_watched_where_it_lies(
    app: Path, tmp_path: Path, watch: Watch
) -> None:
    (tmp_path / "shared").mkdir()
    shared = tmp_path / "shared" / "settings.py"
    shared.write_text("x = 1\n")
    (app / "settings.py").symlink_to(shared)
    watcher = watch(app / "settings.py")

    shared.write_text("x = 2\n")

    assert candidates(watcher, app) == {"settings.py"}


def test_checkout_of_two_thousand_files(app: Path, tmp_path: Path, watch: Watch) -> None:
    for number in range(2_000):
        folder = app / f"part{number % 40}"
        folder.mkdir(exist_ok=True)
        (folder / f"m{number}.py").write_text("x = 1\n")
    watcher = watch()

    for number in range(2_000):
        beside = tmp_path / "beside"
        beside.write_text("x = 2\n")
        beside.rename(app / f"part{number % 40}" / f"m{number}.py")

    changes = watcher.read()
    assert len(changes.candidates) == 2_000
    assert not changes.everything
