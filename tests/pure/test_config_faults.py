"""What a wrong config says: all its faults, one a line: the place, the key, what is allowed."""

from pathlib import Path

import pytest

from procd.config.load import load
from procd.config.schema import NOT_YET
from tests.pure.configs import fault, faults, refusal, written

# ---------------------------------------------------------------- all at once, with a place


def test_all_faults_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """
workr_num: 3
listen:
  - tcp://127.0.0.1:1
  - tcp:/x
  - [nested]
max_wait_time: soon
env: {1A: x, B: null}
"""
    environ = {"PROCD_BACKLOG": "0"}
    listen = "allowed: tcp://host:port, unix:///path?mode=0660, systemd://NAME"
    seconds = "allowed: seconds above 0, at most 31536000"
    env = "allowed: a mapping as {NAME: text}"

    assert faults(tmp_path, text, "max_con=1", "max_conn=x", environ=environ) == [
        "procd.yaml:1:1: app: is missing; name your app, as app: module:server",
        "procd.yaml:2:1: workr_num: unknown key; did you mean worker_num?",
        f'procd.yaml:5:5: listen[1]: "tcp:/x" is no address; {listen}',
        f"procd.yaml:6:5: listen[2]: a list is no text; {listen}",
        f'procd.yaml:7:16: max_wait_time: "soon" is no number; {seconds}',
        f'procd.yaml:8:7: env.1A: "1A" is no name of a variable; {env}',
        f"procd.yaml:8:17: env.B: null is no text, '' is the empty one; {env}",
        "-s max_con: unknown key; did you mean max_conn?",
        "PROCD_BACKLOG: 0 is out of range; allowed: a whole number from 1 to 65535",
        '-s max_conn: "x" is no whole number; allowed: a whole number from 1 to 1000000',
    ]


def test_value_that_an_override_replaces_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "procd.yaml"
    path.write_text("app: a:b\nworker_num: x")

    assert load(path, ["worker_num=3"], {}).worker_num == 3


def test_bad_listener_says_what_is_allowed(tmp_path: Path) -> None:
    assert fault(tmp_path, "listen: [tcp:/x]") == (
        'procd.yaml:2:10: listen[0]: "tcp:/x" is no address; allowed: '
        "tcp://host:port, unix:///path?mode=0660, systemd://NAME"
    )


def test_very_many_faults_are_cut_short(tmp_path: Path) -> None:
    lines = faults(tmp_path, "\n".join(f"key{n}: 1" for n in range(400)))

    assert len(lines) == 101
    assert lines[-1].endswith("more faults begin here; only 100 are shown")


def test_fault_is_one_line_whatever_the_value_holds(tmp_path: Path) -> None:
    line = fault(tmp_path, r'on_reload: "a\nb\e[31m\u2028' + "x" * 500 + '"')

    assert line.isprintable()
    assert len(line) < 250


def test_path_of_the_file_is_printable(tmp_path: Path) -> None:
    folder = tmp_path / "a\nb"
    folder.mkdir()

    assert refusal(written(folder, "")).isprintable()


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("worker_num: 0", 13, "0 is out of range; allowed: a whole number from 1 to 512, auto"),
        ("worker_num: 513", 13, "out of range"),
        ("worker_num: true", 13, "true is no whole number"),
        ("worker_num: 1.0", 13, "1.0 is no whole number"),
        ('worker_num: "2"', 13, '"2" is no whole number'),
        ("worker_num:", 12, "null is no whole number"),
        ("worker_num: [1]", 13, "a list is not one value"),
        ("worker_num: 1:30", 13, '"1:30" is no whole number'),
        ("worker_num: 2024-01-01", 13, '"2024-01-01" is no whole number'),
        ("worker_num: " + "9" * 5000, 13, "is no whole number"),
        ("worker_num: 0x" + "f" * 5000, 13, "is no whole number"),
        ("max_request: 0x_", 14, '"0x_" is no whole number'),
        ("max_wait_time: 0", 16, "out of range"),
        ("max_wait_time: -1", 16, "out of range"),
        ("max_wait_time: .nan", 16, "out of range"),
        ("max_wait_time: .inf", 16, "out of range"),
        ("max_wait_time: 1e999", 16, "out of range"),
        ("max_wait_time: 31536001", 16, "out of range"),
        ("max_wait_time: false", 16, "is no number"),
        ("max_wait_time: 30s", 16, "is no number"),
        ("send_buffer_bytes: 1KB", 20, "is no size; allowed: bytes from 1K to 1G, as 65536 or 64K"),
        ("send_buffer_bytes: 2G", 20, '"2G" is out of range'),
        ("send_buffer_bytes: yes", 20, "is no size"),
        ("task_slot_bytes: 1000", 18, "1000 is no multiple of 64"),
        ("message_queue_mode: 660", 21, "660 is no mode; allowed: octal digits as 0660"),
        ("message_queue_mode: 0888", 21, "is no mode"),
        ("message_queue_mode: 07777", 21, "is no mode"),
        ("nice: 20", 7, "20 is out of range; allowed: a whole number from -20 to 19, null"),
        ("nice: high", 7, '"high" is no whole number'),
        ("umask: 22", 8, "22 is no mode; allowed: octal digits as 0660"),
        ("rlimits: [nofile]", 10, "a list is no mapping"),
        ("rlimits: {files: 3}", 11, '"files" is no limit; allowed: a mapping as {nofile: 65536'),
        ("rlimits: {nofile: many}", 19, '"many" is no size'),
        ("rlimits: {nofile: -1}", 19, "-1 is out of range"),
        ("rlimits: {nofile: null}", 19, "null is no size"),
        ("rlimits: {as: [1]}", 15, "a list is no size"),
        ("cpu_affinity: {a: b}", 15, "a mapping without a set of CPUs"),
        ("cpu_affinity: []", 15, "a list without a set of CPUs; allowed: a list of sets of CPUs"),
        ("cpu_affinity: [3-1]", 16, '"3-1" is no set of CPUs'),
        ("cpu_affinity: [true]", 16, "true is no set of CPUs"),
        ("cpu_affinity: [[1]]", 16, "a list is no set of CPUs"),
        ("cpu_affinity: 0-99999", 15, '"0-99999": there is no CPU 99999'),
        ("cpu_affinity: most", 15, '"most" is no set of CPUs'),
        ("watch_file: 1", 13, "1 is neither true nor false"),
        ("watch_poll: maybe", 13, '"maybe" is neither true nor false; allowed: true, false, auto'),
        ("on_reload: off", 12, "off is not known; allowed: move, drain"),
        ("log_level: Info", 12, "allowed: debug, info, warning, error"),
        ("preload: true", 10, "true is no list"),
        ("preload: [a-b]", 11, '"a-b" is no module name'),
        ("watch_extra: {a: b}", 14, "a mapping is no list"),
        ("watch_extra: ['']", 15, '"" is no text'),
        ("env: [A]", 6, "a list is no mapping"),
        ("env: {A: [b]}", 10, "a list is no text"),
        ("log_file: 1", 11, "1 is no path; allowed: a path, null"),
        ("log_file: ''", 11, "is no path"),
        ("log_file: ~/x", 11, "~ is not expanded"),
        ("log_file: " + "x" * 5000, 11, "is longer than 4095 bytes"),
        ("state_dir: null", 12, "null is no path; allowed: a path"),
        ("state_dir: run", 12, "is the same as run_dir"),
        ("worker_pid_file: run/master.pid", 18, "is the same as master_pid_file"),
        ("chdir: nowhere", 8, "there is no folder"),
        ("user: no-such-user", 7, 'this system knows no user "no-such-user"'),
        ("group: -1", 8, "this system knows no group -1"),
        ("user: 4294967295", 7, "out of range"),
        ("user: true", 7, "is no user"),
    ],
)
def test_wrong_value(tmp_path: Path, text: str, column: int, words: str) -> None:
    line = fault(tmp_path, text)
    key = text.partition(":")[0]

    assert line.startswith(f"procd.yaml:2:{column}: {key}")
    assert words in line


@pytest.mark.parametrize(
    "app",
    ["app", "app:", ":server", "a b:c", "app:1x", "app:a..b", ".py:a", "x/.py:a", "1", "[a, b]"],
)
def test_wrong_app(tmp_path: Path, app: str) -> None:
    (line,) = faults(tmp_path, f"app: {app!r}" if ":" in app else f"app: {app}")

    assert line.startswith("procd.yaml:1:6: app: ")
    assert "allowed: module:attribute, path/to/file.py:attribute" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tcp://h", "is no address"),
        ("tcp://:9000", "is no address"),
        ("tcp://h:65536", "port 65536 is above 65535"),
        ("tcp://h:-1", "is no address"),
        ("tcp://h:1/", "is no address"),
        ("tcp://h:\u0661", "is no address"),
        ("tcp://u@h:1", "is no address"),
        ("tcp://::1:9000", "stands in brackets"),
        ("tcp://[::g]:1", "is no IP address"),
        ("tcp://127.0.0.256:1", "is no IP address"),
        ("tcp://*:1", '"*" is no host'),
        ("TCP://h:1", "is no address"),
        ("9000", "is no address"),
        ("unix://", "names no socket"),
        ("unix:///run/", "names no socket"),
        ("unix://@x", "abstract"),
        ("unix:///x?mode=999", "only ?mode=0660"),
        ("unix:///x?", "only ?mode=0660"),
        ("unix:///" + "x" * 107, "the path has 108 bytes, the kernel takes 107"),
        ("systemd://", "FileDescriptorName="),
        ("systemd://a:b", "FileDescriptorName="),
        ("https://h:1", "https:// is not in this version of procd yet"),
    ],
)
def test_wrong_listener(tmp_path: Path, text: str, words: str) -> None:
    line = fault(tmp_path, f'listen: ["{text}"]')

    assert line.startswith('procd.yaml:2:10: listen[0]: "')
    assert words in line


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("tcp://h:1", "tcp://H:1"),
        ("tcp://[::1]:1", "tcp://[0:0::1]:1"),
        ("unix:///x", "unix:///y/../x?mode=0600"),
        ("systemd://a", "systemd://a"),
    ],
)
def test_listener_that_stands_twice(tmp_path: Path, one: str, two: str) -> None:
    assert "is the same as listen[0]" in fault(tmp_path, f'listen: ["{one}", "{two}"]')


def test_key_whose_feature_is_not_there_yet_must_not_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NOT_YET, "max_memory", "that")
    line = fault(tmp_path, "max_memory: 1G")
    assert line.endswith("that is not in this version of procd yet; leave it at null")


def test_run_dir_leaves_room_for_its_sockets(tmp_path: Path) -> None:
    fits = "/" + "x" * 81
    (tmp_path / "procd.yaml").write_text(f"app: a:b\nrun_dir: {fits}")
    config = load(tmp_path / "procd.yaml", environ={})
    assert len(f"{config.run_dir}/ipc/9999.9999999999.sock") == 107

    line = fault(tmp_path, f"run_dir: {fits}x")
    assert line.startswith("procd.yaml:2:10: run_dir: ")
    assert "has 83 bytes, at most 82" in line
    assert "set run_dir to a short absolute path, as /run/NAME" in line


def test_run_dir_cannot_come_from_outside_the_file(tmp_path: Path) -> None:
    environ = {"PROCD_RUN_DIR": "/x"}
    words = "can stand in the file only, else `procd stop` could not find the service"

    assert faults(tmp_path, "app: a:b", "run_dir=/y", environ=environ) == [
        f"PROCD_RUN_DIR: {words}",
        f"-s run_dir: {words}",
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("worker_num", "-s worker_num: has no value; write -s worker_num=VALUE"),
        ("worker-num=1", "-s worker-num: unknown key; did you mean worker_num?"),
        ("=1", '-s "": unknown key'),
        ("config=1", "-s config: unknown key"),
        ("worker_num=", "-s worker_num: null is no whole number"),
        ("worker_num=[", "-s worker_num: not valid YAML: while parsing a flow node"),
        ("listen=[x]", '-s listen: listen[0]: "x" is no address'),
        ("app=\udcff", "-s app: character U+DCFF: a config is plain text"),
    ],
)
def test_wrong_override(tmp_path: Path, override: str, line: str) -> None:
    (found,) = faults(tmp_path, "app: a:b", override)

    assert found.startswith(line)
