"""Files that foreign programs name: what is read and deleted, and what is left as it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.ingress.tmpfile import TmpDir
from procd.ipc.foreign.message import Reason, Refused
from procd.ipc.foreign.swoole import TmpFile
from tests.kernel.forked import NOBODY, Say, forked, needs_root

GROUP = 54321


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def own(folder: Path) -> TmpDir:
    return TmpDir(folder, 1000, None, is_shared=False)


def named(path: Path | str, size: int = 5) -> TmpFile:
    return TmpFile(os.fsencode(path), size)


def refusal(tmpdir: TmpDir, file: TmpFile) -> str:
    """Why a file is refused."""
    with pytest.raises(Refused) as refused:
        tmpdir.read(file)
    assert refused.value.reason in (Reason.FILE, Reason.TOO_BIG)
    return str(refused.value)


@pytest.mark.parametrize("how", ["{}/f", "f", "{}/../{}/f", "{}//f"])
def test_a_file_is_read_whole_and_deleted_when_it_is_a_task(folder: Path, how: str) -> None:
    (folder / "f").write_bytes(b"hello")
    path = how.replace("{}/../{}", f"{folder}/../{folder.name}").replace("{}", str(folder))
    content = own(folder).read(named(path))
    assert content.data == b"hello"
    assert (folder / "f").exists()
    own(folder).remove(content)
    assert list(folder.iterdir()) == []


def test_a_folder_may_be_named_by_a_link(folder: Path) -> None:
    real, link = folder / "real", folder / "link"
    real.mkdir()
    link.symlink_to(real)
    (real / "f").write_bytes(b"hello")
    assert own(link).read(named(link / "f")).data == b"hello"
    assert own(link).read(named(real / "f")).data == b"hello"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../f", "sub/f", "..", ".", "/", "/f", "sub/../../f"]
)
def test_what_is_elsewhere_is_refused(folder: Path, path: str) -> None:
    inside = folder / "inside"
    (inside / "sub").mkdir(parents=True)
    (folder / "f").write_bytes(b"hello")
    (inside / "sub" / "f").write_bytes(b"hello")
    assert "it is not in" in refusal(own(inside), named(path))
    assert (folder / "f").read_bytes() == (inside / "sub" / "f").read_bytes() == b"hello"


def test_what_is_no_plain_file_is_refused(folder: Path) -> None:
    secret = folder / "secret"
    secret.write_bytes(b"hello")
    (folder / "link").symlink_to(secret)
    os.mkfifo(folder / "fifo")
    (folder / "sub").mkdir()
    for name in ("link", "fifo", "sub"):
        assert "no regular file" in refusal(own(folder), named(folder / name))
        assert os.path.lexists(folder / name)
    os.link(secret, folder / "second")
    assert "2 names" in refusal(own(folder), named(folder / "second"))
    assert "No such file" in refusal(own(folder), named(folder / "missing"))
    assert secret.read_bytes() == b"hello"


def test_a_size_is_not_believed(folder: Path) -> None:
    (folder / "f").write_bytes(b"hello")
    for size in (0, 4, 6):
        assert "its message says" in refusal(own(folder), named(folder / "f", size))
    (folder / "large").write_bytes(b"x" * 1001)
    assert "task_max_bytes is 1000" in refusal(own(folder), named(folder / "large", 1001))


@needs_root
def test_a_file_of_another_user_is_refused_unless_it_is_the_groups(folder: Path) -> None:
    path = folder / "f"
    path.write_bytes(b"hello")
    path.chmod(0o640)
    os.chown(path, NOBODY, GROUP)
    assert f"belongs to uid {NOBODY}" in refusal(own(folder), named(path))
    members = TmpDir(folder, 1000, GROUP, is_shared=True)
    assert members.read(named(path)).data == b"hello"
    path.chmod(0o600)
    assert "belongs to" in refusal(members, named(path))
    path.chmod(0o640)
    os.chown(path, NOBODY, GROUP + 1)
    assert "belongs to" in refusal(members, named(path))
    os.chown(path, NOBODY, GROUP)
    os.chown(folder, NOBODY, GROUP)
    assert "belongs to" in refusal(members, named(path))


def test_where_others_may_send_a_folder_for_everybody_is_refused(folder: Path) -> None:
    folder.chmod(0o1777)
    (folder / "f").write_bytes(b"hello")
    shared = TmpDir(folder, 1000, None, is_shared=True)
    assert "everybody may write" in refusal(shared, named(folder / "f"))
    assert own(folder).read(named(folder / "f")).data == b"hello"


@needs_root
def test_a_member_of_the_group_leaves_files_for_another_user(folder: Path) -> None:
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2770)

    def write(_: Say) -> str:
        os.setgroups([])
        os.setgid(GROUP)
        os.setuid(NOBODY)
        os.umask(0o027)
        (folder / "f").write_bytes(b"hello")
        return "written"

    with forked(write) as child:
        assert child.line() == "written"
    members = TmpDir(folder, 1000, GROUP, is_shared=True)
    content = members.read(named(folder / "f"))
    members.remove(content)
    assert (content.data, list(folder.iterdir())) == (b"hello", [])


def test_another_file_in_its_place_is_not_deleted(folder: Path) -> None:
    (folder / "f").write_bytes(b"hello")
    content = own(folder).read(named(folder / "f"))
    (folder / "g").write_bytes(b"other")
    (folder / "g").rename(folder / "f")
    own(folder).remove(content)
    assert (folder / "f").read_bytes() == b"other"
