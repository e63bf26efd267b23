"""Each editor saves in its own way, and each save is one generation of what is on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.service.ragged import Edit, Record, Site, rounds, watched


def vim(site: Site) -> None:
    """The old one becomes the backup, and the new one is written in its place."""
    path, backup = site.path("one"), site.root / "one.py~"
    (site.root / ".one.py.swp").touch()
    (site.root / "4913").touch()
    (site.root / "4913").unlink()
    path.rename(backup)
    path.write_text(site.text())
    path.chmod(0o644)
    backup.unlink()
    (site.root / ".one.py.swp").unlink()


def vim_with_backupcopy(site: Site) -> None:
    shutil.copy2(site.path("one"), site.root / "one.py~")
    site.save("one")
    (site.root / "one.py~").unlink()


def emacs(site: Site) -> None:
    """A lock that is a link to nowhere, an auto-save, the old one kept as a backup."""
    lock, auto = site.root / ".#one.py", site.root / "#one.py#"
    lock.symlink_to("somebody@somewhere.71:1700000000")
    auto.write_text(site.text())
    site.path("one").replace(site.root / "one.py~")
    site.save("one")
    auto.unlink()
    lock.unlink()


def nano(site: Site) -> None:
    """In place, and synced to the disk."""
    lock = site.root / ".one.py.swp"
    lock.write_bytes(b"b0nano")
    fd = os.open(site.path("one"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for byte in site.text():
        os.write(fd, byte.encode())
    os.fsync(fd)
    os.close(fd)
    lock.unlink()


def sed(site: Site) -> None:
    script = f's/"[0-9]*"/"{site.fresh()}"/'
    subprocess.run(["sed", "-i", script, str(site.path("one"))], check=True)


def safe_write(site: Site) -> None:
    """As PyCharm saves: beside, the old one away, the new one in its place, the old one gone."""
    beside, away = site.root / "one.py___jb_tmp___", site.root / "one.py___jb_old___"
    beside.write_text(site.text())
    site.path("one").rename(away)
    beside.rename(site.path("one"))
    away.unlink()


def renamed_over(site: Site) -> None:
    """As gedit and kate save."""
    beside = site.root / ".goutputstream-X1Y2Z3"
    beside.write_text(site.text())
    beside.chmod(0o644)
    beside.rename(site.path("one"))


EDITORS = (vim, vim_with_backupcopy, emacs, nano, sed, safe_write, renamed_over)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with watched() as site:
        yield site


@pytest.mark.heavy
@pytest.mark.parametrize("save", EDITORS, ids=lambda save: save.__name__)
def test_save_of_an_editor_is_one_generation(
    site: Site, save: Edit, record_property: Record
) -> None:
    # If the machine is slow the old one may be away for longer than the watch waits.
    record_property("tally", str(rounds(site, save, usual=1, most=2)))
