"""What a valid config becomes: the manual, defaults, layers, paths, the way to MessagePack."""

import dataclasses
import itertools
from pathlib import Path

import msgpack
import pytest

from procd.config.find import SEARCHED, find
from procd.config.load import load
from procd.config.schema import KEYS, NOT_YET, Config
from procd.errors import UsageError
from tests.pure.configs import loaded, refusal, written

MANUAL = Path(__file__).parents[2] / "config" / "procd.yaml"


# ---------------------------------------------------------------- the manual


def test_manual_names_every_key_of_the_dataclass_in_its_order() -> None:
    names = [
        line.partition(":")[0]
        for line in MANUAL.read_text().splitlines()
        if line and line[0] not in "# "
    ]

    assert names == list(KEYS)
    assert [*names] == [f.name for f in dataclasses.fields(Config) if f.name != "path"]


def test_manual_holds_the_defaults(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "procd.yaml").write_bytes(MANUAL.read_bytes())
    manual = load(folder / "procd.yaml", environ={})
    bare = load(written(tmp_path, "app: examples/hello.py:server"), environ={})

    assert manual == dataclasses.replace(bare, path=manual.path)


def test_manual_explains_every_key_in_a_comment_above_it() -> None:
    lines = MANUAL.read_text().splitlines()
    bare = [
        line
        for above, line in itertools.pairwise(lines)
        if line and line[0] not in "# " and not above.startswith("#")
    ]

    assert bare == ["group: null"]  # explained together with user


def test_every_key_not_there_yet_is_said_so_in_the_manual() -> None:
    sections = MANUAL.read_text().split("\n\n")
    for name in NOT_YET:
        section = next(s for s in sections if f"\n{name}: " in s)
        assert "Not in this version yet" in section, name


# ---------------------------------------------------------------- layers


def test_override_goes_before_environment_before_file_before_default(tmp_path: Path) -> None:
    text = "worker_num: 3\ntask_worker_num: 3\nbacklog: 3"
    environ = {"PROCD_WORKER_NUM": "4", "PROCD_TASK_WORKER_NUM": "4"}
    config = loaded(tmp_path, text, "worker_num=5", environ=environ)

    assert (config.worker_num, config.task_worker_num, config.backlog) == (5, 4, 3)
    assert config.max_conn == 10000


def test_override_values_are_yaml(tmp_path: Path) -> None:
    overrides = ('listen=["tcp://[::1]:1", tcp://h:2]', "env={A: b}", "log_file=null")
    config = loaded(tmp_path, "log_file: x", *overrides)

    assert [listen.port for listen in config.listen] == [1, 2]
    assert (config.env, config.log_file) == ({"A": "b"}, None)


def test_last_of_two_overrides_wins(tmp_path: Path) -> None:
    assert loaded(tmp_path, "", "worker_num=5", "worker_num=6").worker_num == 6


def test_environment_of_other_software_is_left_alone(tmp_path: Path) -> None:
    environ = {"PROCD_CONFIG": "x.yaml", "PROCD_TORTURE": "1", "procd_worker_num": "9"}

    assert loaded(tmp_path, "", environ=environ).worker_num == 2


def test_app_may_come_from_an_override(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), ["app=a:b"], {}).app == "a:b"


# ---------------------------------------------------------------- paths


def test_chdir_begins_at_the_file_and_paths_begin_at_chdir(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    text = "app: a:b\nchdir: ..\nlog_file: logs/../x.log\nstate_dir: /var/lib/x"
    config = load(written(tmp_path / "config", text), environ={})

    assert config.chdir == tmp_path
    assert config.run_dir == tmp_path / "run"
    assert config.log_file == tmp_path / "x.log"
    assert config.state_dir == Path("/var/lib/x")


def test_symlinked_release_stays_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "release-1").mkdir()
    (tmp_path / "current").symlink_to("release-1")

    assert loaded(tmp_path, "chdir: current").chdir == tmp_path / "current"


def test_run_dir_stays_where_stop_looks_for_it_under_another_chdir(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    config = loaded(tmp_path, "", "chdir=other")

    assert config.run_dir == tmp_path / "run"
    assert config.state_dir == tmp_path / "other" / "state"


def test_relative_path_of_the_file_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "app: a:b")
    monkeypatch.chdir(tmp_path)
    config = load(Path("procd.yaml"), environ={})

    assert (config.path, config.chdir) == (tmp_path / "procd.yaml", tmp_path)


# ---------------------------------------------------------------- find


def test_named_config_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert find("x.yaml", {"PROCD_CONFIG": "y.yaml"}) == tmp_path / "x.yaml"
    assert find(None, {"PROCD_CONFIG": "y.yaml"}) == tmp_path / "y.yaml"


def test_first_existing_config_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "")
    assert find(None, {"PROCD_CONFIG": ""}) == tmp_path / "procd.yaml"

    (tmp_path / "config").mkdir()
    written(tmp_path / "config", "")
    assert find(None, {}) == tmp_path / "config" / "procd.yaml"


def test_no_config_names_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # This machine may have a config in /etc.
    monkeypatch.setattr("procd.config.find.SEARCHED", (*SEARCHED[:2], "/nowhere/procd.yaml"))
    with pytest.raises(UsageError) as caught:
        find(None, {})

    for tried in (tmp_path / "config/procd.yaml", tmp_path / "procd.yaml", "/nowhere/procd.yaml"):
        assert str(tried) in str(caught.value)


def test_gone_working_directory_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(UsageError, match="working directory is gone"):
        find("x.yaml", {})
    assert "working directory is gone" in refusal(Path("x.yaml"))


# ---------------------------------------------------------------- plain


def test_config_survives_messagepack(tmp_path: Path) -> None:
    text = (
        'listen: ["tcp://[::1]:1", "unix:///x?mode=0600", systemd://n]\nenv: {A: b}\nlog_file: null'
    )
    config = loaded(tmp_path, text, "preload=[json]", "watch_extra=['*.html']")
    packed = msgpack.packb(config.plain())

    assert Config.from_plain(msgpack.unpackb(packed)) == config
