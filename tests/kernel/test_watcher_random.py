"""Whatever is done to a tree, no change to a counting file goes unseen."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from procd.master.watcher import Watcher
from procd.spawn.sources import digest, fingerprint

FOLDERS = ("current", "current/pkg", "current/pkg/deep", "current/data", "current/data/new")
FILES = ("app.py", "pkg/__init__.py", "pkg/deep/a.py", "pkg/b.py", "linked.py", "data/new/x.json")


class Tree:
    """A release tree behind a link, and what may happen to one."""

    def __init__(self, top: Path, seed: int) -> None:
        self.top = top
        self.random = random.Random(seed)
        for release in ("r1", "r2"):
            for name in FILES:
                if name != "linked.py":
                    (top / release / name).parent.mkdir(parents=True, exist_ok=True)
                    (top / release / name).write_text(f"{release} {name}")
            (top / release / "linked.py").symlink_to("../shared.py")
        (top / "shared.py").write_text("shared")
        (top / "current").symlink_to("r1")

    def act(self) -> str:
        """Do one random thing and name it; what cannot be done now is not done."""
        act = self.random.choice(
            (self.write, self.write, self.replace, self.remove, self.make, self.swap, self.switch)
        )
        path = self.top / "current" / self.random.choice(FILES)
        with suppress(OSError):
            act(path)
        return f"{act.__name__} {path}"

    def write(self, path: Path) -> None:
        path.write_text(str(self.random.random()))

    def replace(self, path: Path) -> None:
        (self.top / "beside").write_text(str(self.random.random()))
        (self.top / "beside").rename(path)

    def remove(self, path: Path) -> None:
        folder = self.top / self.random.choice(FOLDERS[1:])
        path.unlink() if self.random.random() < 0.7 else shutil.rmtree(folder)

    def make(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(self.top / "shared.py") if self.random.random() < 0.2 else path.touch()

    def swap(self, path: Path) -> None:
        folder = self.top / self.random.choice(FOLDERS[1:])
        folder.rename(self.top / "aside")
        if self.random.random() < 0.5:
            shutil.copytree(self.top / "aside", folder)
            shutil.rmtree(self.top / "aside")
            self.write(path)
        else:
            (self.top / "aside").rename(folder)

    def switch(self, _: Path) -> None:
        (self.top / "new").symlink_to(self.random.choice(("r1", "r2", "r1/../r2")))
        (self.top / "new").rename(self.top / "current")


@pytest.mark.parametrize("seed", range(12))
def test_no_change_goes_unseen(tmp_path: Path, seed: int) -> None:
    tree = Tree(tmp_path, seed)
    root, glob = str(tmp_path / "current"), f"{tmp_path}/current/data/**/*.json"
    sources = {f"{root}/{name}" for name in FILES if name.endswith(".py")}
    watcher = Watcher([tmp_path / "current"], [glob], poll=False)
    watcher.watch(sources)
    before = digest(sources | set(fingerprint((), [glob])))
    for _ in range(60):
        acts = [tree.act() for _ in range(tree.random.choice((1, 1, 1, 2, 5)))]

        changes = watcher.read()

        after = digest(sources | set(fingerprint((), [glob])) | before.keys())
        changed = {path for path, value in after.items() if before.get(path) != value}
        assert changes.everything or changed <= changes.candidates, acts
        before = after
    assert not watcher.polls
    watcher.close()
