"""procd systemd: the unit of this config, for this Python and this systemd."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click

from procd.cli.root import config_path
from procd.config.load import load
from procd.config.schema import Config
from procd.errors import ProcdError, UsageError
from procd.service.unit import Machine, name_of, unit_text

_ASSUMED = 252  # where there is no systemctl to ask: Debian 12's
_SERVICE_USER = "procd"

user_option = click.option("--user", "is_users", is_flag=True, help="For your own systemd --user.")
name_argument = click.argument("name", required=False)


@click.group()
def systemd() -> None:
    """Write the systemd unit of this config.

    NAME is what systemctl will call it; without it the config's file or folder says. The unit
    reloads by `systemctl reload` only: watch_file is off in it.
    """


@systemd.command("print")
@user_option
@name_argument
@click.pass_context
def print_unit(ctx: click.Context, name: str | None, *, is_users: bool) -> None:
    """Print the unit."""
    config = load(config_path(ctx), environ={})
    click.echo(text(config, name, is_users=is_users), nl=False)


@systemd.command()
@user_option
@click.option("--force", is_flag=True, help="Replace a unit that differs.")
@name_argument
@click.pass_context
def install(ctx: click.Context, name: str | None, *, is_users: bool, force: bool) -> None:
    """Write the unit where systemd looks for it, and say how to go on."""
    config = load(config_path(ctx), environ={})
    path = _folder(is_users=is_users) / f"{_name(config, name)}.service"
    unit = text(config, name, is_users=is_users)
    there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
    if there == unit:
        click.echo(f"{path} is there already, and the same")
    elif there is not None and not force:
        raise ProcdError(f"{path} is there and differs: look at it, then say --force")
    else:
        _write(path, unit)
        click.echo(f"{path} written")
    click.echo("\nNext:\n")
    for line in _next(path.stem, config, is_users=is_users):
        click.echo(f"    {line}")


def text(config: Config, name: str | None, *, is_users: bool = False) -> str:
    """Return the unit of *config* on this machine."""
    user = None if is_users else _user(config)
    machine = Machine(Path(sys.executable), version(), user)
    return unit_text(_name(config, name), config, machine)


def version() -> int:
    """Return the version of systemd here."""
    with suppress(OSError, subprocess.SubprocessError, IndexError, ValueError):
        done = subprocess.run(
            ["systemctl", "--version"],  # noqa: S607 - wherever it is
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        return int(done.stdout.split()[1])
    return _ASSUMED


def _user(config: Config) -> str:
    """Return who the service should be: as the config says, else who owns the app, never root."""
    if config.user is not None:
        return config.user
    with suppress(OSError, KeyError):
        owner = os.stat(config.chdir).st_uid
        if owner != 0:
            return pwd.getpwuid(owner).pw_name
    return _SERVICE_USER


def _name(config: Config, name: str | None) -> str:
    name = name_of(config) if name is None else name.removesuffix(".service")
    if re.fullmatch(r"[A-Za-z0-9_.:-]{1,200}(@[A-Za-z0-9_.:-]*)?", name) is None:
        raise UsageError(f"{name!r} is no name for a unit: letters, digits, and _ . : -")
    return name


def _folder(*, is_users: bool) -> Path:
    if is_users:
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        return Path(home) / "systemd/user"
    if os.geteuid() != 0:
        raise ProcdError("only root can install a system unit: sudo, or --user for your own")
    return Path("/etc/systemd/system")


def _write(path: Path, unit: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(unit, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ProcdError(f"cannot write {path}: {error.strerror}") from None


def _next(name: str, config: Config, *, is_users: bool) -> list[str]:
    systemctl = "systemctl --user" if is_users else "systemctl"
    lines = [f"{systemctl} daemon-reload", f"{systemctl} enable --now {name}"]
    if is_users:
        return [*lines, "loginctl enable-linger    # it then runs while you are logged out, too"]
    user = _user(config)
    try:
        pwd.getpwnam(user)
    except KeyError:
        if not user.isdecimal():
            nologin = "--no-create-home --shell /usr/sbin/nologin"
            lines.insert(0, f"useradd --system {nologin} {user}")
    return [*lines, f"systemctl reload {name}    # after each release"]
