"""A glob says the same of names as of the disk; a mount table tells silent file systems."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from procd.linux.mounts import is_silent, types_by_device
from procd.spawn.globs import Globs

MOUNTINFO = """\
22 28 0:20 / /proc rw,nosuid shared:13 - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
60 28 0:51 / /mnt/a\\040b rw shared:2 master:7 - fuse.sshfs me@host:/ rw
"""


@pytest.mark.parametrize(
    ("pattern", "path", "counts"),
    [
        ("/srv/t/*.html", "/srv/t/a.html", True),
        ("/srv/t/*.html", "/srv/t/.a.html", False),  # an editor's swap or lock file
        ("/srv/t/.*.html", "/srv/t/.a.html", True),
        ("/srv/t/*.html", "/srv/t/sub/a.html", False),
        ("/srv/t/**/*.html", "/srv/t/a.html", True),
        ("/srv/t/**/*.html", "/srv/t/sub/deep/a.html", True),
        ("/srv/t/**/*.html", "/srv/t/.git/a.html", False),
        ("/srv/t/**", "/srv/t/sub/a.css", True),
        ("/srv/*/a.json", "/srv/x/a.json", True),
        ("/srv/[ab].json", "/srv/b.json", True),
        ("/srv/[[]a].json", "/srv/[a].json", True),
        ("/srv/one.yaml", "/srv/one.yaml", True),
        ("/srv/one.yaml", "/srv/two.yaml", False),
        ("/srv/./t/../one.yaml", "/srv/one.yaml", True),
    ],
)
def test_name_counts(pattern: str, path: str, *, counts: bool) -> None:
    assert Globs([pattern]).matches(path) is counts


@pytest.mark.parametrize(
    ("pattern", "folder", "leads"),
    [
        ("/srv/t/*.html", "/srv/t", True),
        ("/srv/t/*.html", "/srv", True),
        ("/srv/t/*.html", "/srv/t/sub", False),
        ("/srv/t/**/*.html", "/srv/t/sub/deep", True),
        ("/srv/t/**/*.html", "/srv/t/.git", False),
        ("/srv/*/x/*.html", "/srv/any", True),
        ("/srv/*/x/*.html", "/srv/any/y", False),
    ],
)
def test_folder_leads_to_what_counts(pattern: str, folder: str, *, leads: bool) -> None:
    assert Globs([pattern]).leads(folder) is leads


def test_disk_names_and_glob_agree(tmp_path: Path) -> None:
    for name in ("a.html", ".b.html", "x/c.html", "x/y/d.html", ".h/e.html", "x/f.css", "z/g.css"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("x")
    (tmp_path / "link.html").symlink_to("x/c.html")
    (tmp_path / "lost.html").symlink_to("nothing")
    (tmp_path / "folder.html").mkdir()
    patterns = ("**/*.html", "x/*.css", "none/*", "?/y/**", "z/g.css", "z/none.css", ".h/*")

    for pattern in patterns:
        full = f"{tmp_path}/{pattern}"
        files = {path for path in glob.glob(full, recursive=True) if os.path.isfile(path)}
        assert set(Globs([full]).look().files) == files
        assert all(Globs([full]).matches(path) for path in files)
    folders = Globs([f"{tmp_path}/{pattern}" for pattern in patterns]).look().folders
    assert {os.path.relpath(path, tmp_path) for path in folders} == {
        *(".", "x", "x/y", "none", "z", ".h", "link", "link/y", "folder.html"),
    }


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("one", "two", "sub/three", "sub/four"):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "sub" / "a.html").touch()

    found = Globs([f"{tmp_path}/**/*.html"]).look()

    assert found.files == [f"{tmp_path}/sub/a.html"]


def test_look_at_many_folders_ends(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"part{number}").mkdir()

    assert len(Globs([f"{tmp_path}/**/*.html"]).look(most=10).folders) == 10


def test_mount_table_gives_the_type_by_device() -> None:
    types = types_by_device(MOUNTINFO)

    assert types[os.makedev(254, 1)] == "ext4"
    assert types[os.makedev(0, 51)] == "fuse.sshfs"


@pytest.mark.parametrize("fstype", ["nfs", "nfs4", "cifs", "9p", "overlay", "fuse.sshfs", "vboxsf"])
def test_file_system_that_others_change_is_silent(fstype: str) -> None:
    assert is_silent(fstype)


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs", "tmpfs", "zfs", "fuseblk", ""])
def test_local_file_system_is_not_silent(fstype: str) -> None:
    assert not is_silent(fstype)
