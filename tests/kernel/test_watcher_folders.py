"""Globs and folders that are not there yet, on real directories."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from procd.master.watcher import _MOST_HOPES, Changes, Watcher

NOTHING = Changes()
REPOSITORY = Path(__file__).parents[2]


@contextmanager
def watching(
    root: Path, *sources: str, extra: tuple[str, ...] = (), searching: bool = False
) -> Iterator[Watcher]:
    watcher = Watcher([root], [f"{root}/{glob}" for glob in extra], poll=False)
    with ExitStack() as stack:
        stack.callback(watcher.close)
        watcher.watch([f"{root}/{source}" for source in sources], searching=searching)
        yield watcher


def named(paths: frozenset[str], root: Path) -> set[str]:
    return {os.path.relpath(path, root) for path in paths}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text("x = 1\n")
    return tmp_path


def test_file_of_a_glob_counts_when_it_comes_changes_and_goes(root: Path) -> None:
    (root / "templates" / "mail").mkdir(parents=True)
    page = root / "templates" / "mail" / "hello.html"
    with watching(root, "app.py", extra=("templates/**/*.html",)) as watcher:
        for act in (lambda: page.write_text("a"), lambda: page.write_text("b"), page.unlink):
            act()
            assert named(watcher.read().candidates, root) == {"templates/mail/hello.html"}
        (root / "templates" / "mail" / "style.css").write_text("")
        assert watcher.read() == NOTHING


def test_folders_that_a_glob_waits_for(root: Path) -> None:
    with watching(root, "app.py", extra=("templates/**/*.html",)) as watcher:
        (root / "templates").mkdir()
        watcher.read()
        (root / "templates" / "deep" / "er").mkdir(parents=True)
        (root / "templates" / "deep" / "er" / "a.html").write_text("written before the watch stood")

        assert "templates/deep/er/a.html" in named(watcher.read().candidates, root)
        (root / "templates" / "deep" / "er" / "b.html").write_text("and after")
        assert named(watcher.read().candidates, root) == {"templates/deep/er/b.html"}


def test_folder_of_a_glob_that_is_moved_away(root: Path) -> None:
    (root / "templates" / "mail").mkdir(parents=True)
    (root / "templates" / "mail" / "a.html").write_text("a")
    with watching(root, "app.py", extra=("templates/**/*.html",)) as watcher:
        (root / "templates" / "mail").rename(root / "away")

        assert watcher.read().everything


def test_file_outside_of_every_root_counts_by_its_glob(tmp_path: Path) -> None:
    for name in ("app", "etc"):
        (tmp_path / name).mkdir()
    config = tmp_path / "etc" / "procd.yaml"
    watcher = Watcher([tmp_path / "app"], [str(config)], poll=False)
    watcher.watch(())

    config.write_text("app: app:server\n")

    assert watcher.read() == Changes(candidates=frozenset({str(config)}), is_whole=True)
    watcher.close()


def test_new_package_is_watched_and_listed_at_once(root: Path) -> None:
    with watching(root, "app.py") as watcher:
        (root / "fresh" / "deep").mkdir(parents=True)
        (root / "fresh" / "deep" / "early.py").write_text("")
        assert named(watcher.read().unknown_py, root) == {"fresh/deep/early.py"}

        (root / "fresh" / "deep" / "late.py").write_text("")
        assert named(watcher.read().unknown_py, root) == {"fresh/deep/late.py"}


def test_folder_made_and_removed_again_is_nothing(root: Path) -> None:
    with watching(root, "app.py") as watcher:
        (root / "fresh").mkdir()
        watcher.read()
        (root / "fresh").rmdir()

        assert watcher.read() == NOTHING


def test_new_folder_that_is_moved_is_known_by_its_new_name(root: Path) -> None:
    with watching(root, "app.py") as watcher:
        (root / "one").mkdir()
        watcher.read()
        (root / "one").rename(root / "two")
        watcher.read()

        (root / "two" / "late.py").write_text("")

        assert named(watcher.read().unknown_py, root) == {"two/late.py"}


def test_searching_sees_a_module_come_in_a_folder_without_sources(root: Path) -> None:
    (root / "old" / "deep").mkdir(parents=True)
    with watching(root, "app.py") as watcher:
        (root / "old" / "deep" / "a.py").write_text("")
        assert watcher.read() == NOTHING

        watcher.watch([f"{root}/app.py"], searching=True)
        (root / "old" / "deep" / "b.py").write_text("")
        assert named(watcher.read().unknown_py, root) == {"old/deep/b.py"}

        watcher.watch([f"{root}/app.py"])
        watcher.read()
        (root / "old" / "deep" / "c.py").write_text("")
        assert watcher.read() == NOTHING


@pytest.mark.parametrize("name", [".git", "__pycache__", "node_modules", "venv"])
def test_searching_leaves_out_what_is_no_code(root: Path, name: str) -> None:
    (root / name).mkdir()
    (root / name / "pyvenv.cfg").touch()
    with watching(root, "app.py", searching=True) as watcher:
        (root / name / "a.py").write_text("")

        assert watcher.read() == NOTHING


def test_app_that_makes_many_folders_does_not_use_up_the_watches(root: Path) -> None:
    with watching(root, "app.py") as watcher:
        for number in range(2 * _MOST_HOPES):
            (root / f"cache{number}").mkdir()
        watcher.read()

        assert len(watcher._watched) <= _MOST_HOPES + 2
        (root / "app.py").write_text("x = 2\n")
        assert named(watcher.read().candidates, root) == {"app.py"}


def test_same_folder_under_two_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "app.py").write_text("x = 1\n")
    (tmp_path / "link").symlink_to("real")
    link, real = f"{tmp_path}/link/app.py", f"{tmp_path}/real/app.py"
    watcher = Watcher([tmp_path / "link"], (), poll=False)
    watcher.watch({link, real})

    (tmp_path / "real" / "app.py").write_text("x = 2\n")

    assert watcher.read().candidates == {link, real}
    watcher.close()


def test_source_behind_dots_is_found(root: Path) -> None:
    (root / "lib").mkdir()
    (root / "lib" / "a.py").write_text("")
    with watching(root, "conf/../lib/a.py", "lib/../lib/a.py") as watcher:
        (root / "lib" / "a.py").write_text("x = 2\n")

        assert f"{root}/lib/../lib/a.py" in watcher.read().candidates


def test_links_in_a_circle_are_no_trouble(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with watching(root, "a/x.py", "app.py", searching=True) as watcher:
        (root / "app.py").write_text("x = 2\n")

        assert named(watcher.read().candidates, root) == {"app.py"}


def test_watcher_starts_no_process() -> None:
    script = (
        "import sys; from pathlib import Path; from procd.master.watcher import Watcher\n"
        "started = []; sys.addaudithook(lambda name, _: started.append(name))\n"
        "Watcher([Path('/')], (), False).close()\n"
        "print([name for name in started if 'fork' in name or 'Popen' in name])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )

    assert done.stdout == "[]\n"


def test_writing_above_the_root_wakes_nobody(tmp_path: Path) -> None:
    root, noisy = tmp_path / "app", tmp_path / "noisy.log"
    root.mkdir()
    noisy.touch()
    with watching(root, "app.py") as watcher:
        with noisy.open("a") as log:
            log.write("a line\n")
        noisy.chmod(0o600)
        os.utime(noisy)
        assert not select.select([watcher.fd], [], [], 0)[0]

        root.rename(tmp_path / "away")
        assert watcher.read().everything


def test_folder_above_the_root_that_comes_to_hold_a_source_tells_of_its_files(
    tmp_path: Path,
) -> None:
    root, shared = tmp_path / "app", tmp_path / "shared.py"
    root.mkdir()
    shared.write_text("x = 1\n")
    with watching(root, "app.py") as watcher:
        watcher.watch([f"{root}/app.py", str(shared)])
        shared.write_text("x = 2\n")
        assert watcher.read().candidates == {str(shared)}

        watcher.watch([f"{root}/app.py"])
        shared.write_text("x = 3\n")
        assert watcher.read() == NOTHING
        watcher.watch([str(shared)])
        shared.write_text("x = 4\n")
        assert watcher.read().candidates == {str(shared)}


def test_root_that_becomes_readable_again_may_differ(tmp_path: Path) -> None:
    root = tmp_path / "app"
    root.mkdir()
    with watching(root, "app.py") as watcher:
        root.chmod(0o750)

        assert watcher.read().everything


def test_package_that_hides_a_source_is_a_reason_to_look(root: Path) -> None:
    with watching(root, "app.py", "one.py") as watcher:
        for name in ("one", "two"):
            (root / name).mkdir()
            (root / name / "__init__.py").write_text("")

        assert named(watcher.read().candidates, root) == {"one/__init__.py"}
