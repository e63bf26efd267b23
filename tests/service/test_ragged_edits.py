"""Edits as people, tools and editors make them: what is served at the end is what is on disk.

Beside each stands how many generations it takes, refused ones included. What lies on the disk for
longer than the watch waits is served or refused, and takes one; what is there for a shorter time
takes none of its own.
"""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import pause
from tests.service.ragged import Edit, Record, Site, held, rounds, watched


def same_size_within_a_second(site: Site) -> None:
    """Bytecode beside it, of the same second and size, is not believed."""
    for _ in range(3):
        site.save("one")
        py_compile.compile(str(site.path("one")))
        pause(0.05)


def same_size_at_once(site: Site) -> None:
    for _ in range(3):
        site.save("one")


def save_during_the_boot(site: Site) -> None:
    """The import of what is to be replaced is under way, and ends only then."""
    imported = site.root / "imported"
    site.save("one", more=held(imported))
    site.service.wait_for(imported.exists, 5)
    site.save("one")
    imported.unlink()


def old_content_restored_during_the_boot(site: Site) -> None:
    old = site.path("one").read_text()
    save_during_the_boot(site)
    site.path("one").write_text(old)


def half_a_file_held_open(site: Site) -> None:
    """Nobody is told of it before it is closed."""
    text = site.text(more="def f():\n    return 1\n")
    with site.path("one").open("w") as file:
        file.write(text[:-11])
        file.flush()
        pause(0.03)
        file.write(text[-11:])


def half_a_file_closed(gap: float) -> Edit:
    """A first half that is no Python, closed; the rest after a moment."""

    def edit(site: Site) -> None:
        text = site.text(more="def f(\n): return 1\n")
        site.path("one").write_text(text[:-12])
        pause(gap)
        with site.path("one").open("a") as file:
            file.write(text[-12:])

    return edit


def half_a_file_held_open_while_another_is_saved(site: Site) -> None:
    with site.path("one").open("w") as file:
        file.write("def f(\n")
        file.flush()
        site.save("two")
        pause(0.03)
        file.write(f"): pass\n{site.text()}")


def deleted_and_back(gap: float) -> Edit:
    def edit(site: Site) -> None:
        site.path("one").unlink()
        pause(gap)
        site.save("one")

    return edit


def deleted_and_back_as_it_was(gap: float) -> Edit:
    def edit(site: Site) -> None:
        site.path("one").rename(site.root / "kept")
        pause(gap)
        (site.root / "kept").rename(site.path("one"))

    return edit


def syntax_error_fixed(site: Site) -> None:
    site.save("one", more="def (:\n")
    pause(0.1)
    site.save("one")


def two_that_belong_together(gap: float) -> Edit:
    """With only one of them saved the import fails."""

    def edit(site: Site) -> None:
        value = site.fresh()
        together = f'import one\nassert one.NAME == "{value}"\n'
        site.save("one", value)
        pause(gap)
        site.save("two", value, together)
        site.save("two", value, together)

    return edit


def module_renamed(site: Site) -> None:
    old, new = ("one", "uno") if site.path("one").exists() else ("uno", "one")
    site.path(old).rename(site.path(new))
    text = site.path("parts").read_text()
    site.path("parts").write_text(text.replace(old, new))


def package_in_place_of_a_module(site: Site) -> None:
    package = site.root / "one"
    if package.exists():
        site.save("one")
        shutil.rmtree(package)
    else:
        package.mkdir()
        (package / "__init__.py").write_text("from one.inner import NAME\n")
        (package / "inner.py").write_text(site.text())
        site.path("one").unlink()


def package_beside_a_module(site: Site) -> None:
    """Python takes the package, and the module again when that is gone."""
    package = site.root / "one"
    if package.exists():
        shutil.rmtree(package)
    else:
        package.mkdir()
        (package / "__init__.py").write_text(site.text())


def link_in_place_of_a_file(site: Site) -> None:
    """And back; what it points at is saved in between."""
    real, beside = site.root / "real" / "one.py", site.root / "beside"
    real.parent.mkdir(exist_ok=True)
    if site.path("one").is_symlink():
        real.write_text(site.text())
        pause(0.05)
        beside.write_text(site.text())
    else:
        real.write_text(site.text())
        beside.symlink_to("real/one.py")
    beside.rename(site.path("one"))


def touched_only(site: Site) -> None:
    os.utime(site.path("one"))
    site.path("two").write_text(site.path("two").read_text())
    site.path("one").chmod(0o600)
    with site.path("one").open("a"):
        pass


# name → the edit, how many generations it takes, and how many more it may if the machine is slow:
# what is meant to come within the quiet of a hundredth of a second then comes after it.
EDITS: dict[str, tuple[Edit, int, int]] = {
    "same size within a second": (same_size_within_a_second, 3, 0),
    "same size at once": (same_size_at_once, 1, 2),
    "save during the boot": (save_during_the_boot, 1, 0),
    "old content restored during the boot": (old_content_restored_during_the_boot, 1, 0),
    "half a file held open": (half_a_file_held_open, 1, 0),
    "half a file, 3 ms, the rest": (half_a_file_closed(0.003), 1, 1),
    "half a file, 100 ms, the rest": (half_a_file_closed(0.1), 2, 0),
    # the half was on the disk when the other one was saved: refused, and then served
    "half a file held open, another saved": (half_a_file_held_open_while_another_is_saved, 2, 0),
    "deleted, back after 3 ms": (deleted_and_back(0.003), 1, 1),
    "deleted, back after 100 ms": (deleted_and_back(0.1), 2, 0),
    "deleted, back as it was after 3 ms": (deleted_and_back_as_it_was(0.003), 0, 2),
    "deleted, back as it was after 100 ms": (deleted_and_back_as_it_was(0.1), 2, 0),
    "syntax error fixed 100 ms later": (syntax_error_fixed, 2, 0),
    "two together, 1 ms apart": (two_that_belong_together(0.001), 1, 1),
    "two together, 5 ms apart": (two_that_belong_together(0.005), 1, 1),
    # Each of the two is written in place: on a loaded machine one is read empty in between.
    "two together, 15 ms apart": (two_that_belong_together(0.015), 2, 1),
    "module renamed": (module_renamed, 1, 1),
    "package in place of a module": (package_in_place_of_a_module, 1, 1),
    "package beside a module": (package_beside_a_module, 1, 1),
    "link in place of a file": (link_in_place_of_a_file, 2, 0),
    "touched only": (touched_only, 0, 0),
}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with watched() as site:
        yield site


@pytest.mark.heavy
@pytest.mark.parametrize("name", EDITS)
def test_what_is_served_at_the_end_is_what_is_on_disk(
    site: Site, name: str, record_property: Record
) -> None:
    edit, usual, more = EDITS[name]
    site.lay()
    site.service.reload()
    tally = rounds(site, edit, usual=usual, most=usual + more)
    record_property("tally", str(tally))


def test_save_during_the_very_first_boot_is_served(make: Serve) -> None:
    service = make(watch_file=True, task_worker_num=1)
    service.edit("import ast\n", "import ast\nimport parts\n")
    site, imported = Site(service), service.root / "imported"
    site.lay()
    site.save("one", more=held(imported))
    with subprocess.Popen(service.argv("start"), env=service.environment(), cwd="/") as command:
        service.wait_for(imported.exists, 15)
        site.save("one")
        site.save("two")
        imported.unlink()
        assert command.wait(20) == 0
    site.wait_until_served(site.on_disk(), "the saves of the boot")
    assert site.begun() <= 2


@pytest.mark.parametrize(
    "name", ["same size at once", "half a file, 3 ms, the rest", "package in place of a module"]
)
def test_polling_serves_in_the_end_what_is_on_disk(name: str) -> None:
    with watched(watch_poll=True) as site:
        site.service.reload()
        rounds(site, EDITS[name][0], usual=1, most=3)


@pytest.mark.heavy
def test_checkout_of_two_thousand_files_is_served_whole(
    make: Serve, record_property: Record
) -> None:
    service = make(watch_file=True, task_worker_num=1)
    service.edit("import ast\n", "import ast\nimport parts\n")
    site = Site(service)
    names = [f"m{number:04d}" for number in range(2_000)]
    for branch in ("first", "second"):
        commit(site.root, names, branch)
    service.start()

    def checkout(site: Site) -> None:
        git(site.root, "checkout", "-q", "first" if site.served() == ["second"] else "second")

    # Begun when its first file comes; one more if it takes longer than the watch waits, as where
    # other tests run beside.
    tally = rounds(site, checkout, usual=2, most=2)
    record_property("tally", str(tally))


def git(folder: Path, *words: str) -> None:
    own = ["-c", "user.name=procd", "-c", "user.email=procd@localhost", "-c", "gc.auto=0"]
    subprocess.run(["git", "-C", str(folder), *own, *words], check=True, capture_output=True)


def commit(folder: Path, names: list[str], branch: str) -> None:
    """Commit a tree whose modules all say the name of the branch; every tenth is imported."""
    (folder / "many").mkdir(exist_ok=True)
    for name in names:
        (folder / "many" / f"{name}.py").write_text(f'NAME = "{branch}"\n')
    imports = "".join(f"from many import {name}\n" for name in names[::10])
    found = ", ".join(f"{name}.NAME" for name in names[::10])
    text = f'{imports}NAMES = sorted({{"{branch}", {found}}})\n'
    (folder / "parts.py").write_text(text)
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    git(folder, "checkout", "-q", "-b", branch)
    git(folder, "add", "many", "parts.py")
    git(folder, "commit", "-q", "-m", branch)
