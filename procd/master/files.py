"""What the service has on disk while it runs: folders, lease, pid files, record.

take() in the order that makes every earlier failure leave nothing, give_back() in the
reverse. Three locks come first, one for each thing that two services must not share: the
folder run_dir, the pid file, and the lease in state_dir. Only who holds them all touches
the rest.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from procd import logs
from procd.config.address import MAX_RUN_DIR
from procd.config.schema import Config
from procd.errors import AlreadyRunning, ProcdError, StartFailed
from procd.ipc import arenafile
from procd.ledger import files as ledger_files
from procd.linux import process
from procd.master import pidfile
from procd.master.lease import Lease
from procd.master.pidfile import MasterPidFile
from procd.service import record


class Files:
    """The files of one running service."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ipc_dir = config.run_dir / "ipc"
        self.control_path = config.run_dir / "control.sock"
        self.arena_path = config.state_dir / "arena"
        self.ids_path = config.state_dir / "ids"
        self.ledger_path = config.state_dir / ledger_files.NAME
        self._spool_path = config.state_dir / arenafile.SPOOL
        self.lease = Lease(config.state_dir / "lease")
        self._pid_file = MasterPidFile(config.master_pid_file)
        self._pids: list[int] | None = None
        self._run_dir_fd = -1
        self._owns_ipc = False
        self._has_record = False

    def take(self) -> None:
        """Raises AlreadyRunning, StartFailed, ProcdError with nothing of ours left."""
        try:
            self._folder(self.config.run_dir, 0o711)
            self._folder(self.config.state_dir, 0o700)
            for path in (self.config.master_pid_file, self.config.worker_pid_file):
                if path is not None:
                    self._folder(path.parent, 0o755)
            self._lock_run_dir()
            self._pid_file.acquire()
            self._pid_file.write(os.getpid())
            self.lease.acquire()
            self._owns_ipc = True
            shutil.rmtree(self.ipc_dir, ignore_errors=True)
            self._folder(self.ipc_dir, 0o700)
            if os.geteuid() == 0:
                os.chown(self.ipc_dir, *owner_of(self.config))
            self.write_pids([])
        except OSError as error:
            self.give_back()
            raise StartFailed(f"{error.filename}: {error.strerror}") from None
        except BaseException:
            self.give_back()
            raise

    def _folder(self, path: Path, mode: int) -> None:
        if path.is_dir():
            if not os.access(path, os.W_OK | os.X_OK):
                raise StartFailed(
                    f"{path}: uid {os.geteuid()} may not write there: change its owner"
                )
            return
        try:
            path.mkdir(parents=True)
            path.chmod(mode)
        except OSError as error:
            raise StartFailed(f"cannot make the folder {path}: {error.strerror}") from None

    def _lock_run_dir(self) -> None:
        # The folder itself: a lock that leaves no file.
        self._run_dir_fd = os.open(self.config.run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._run_dir_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            path = self.config.master_pid_file
            pid = None if path is None else pidfile.running_pid(path)
            who = "another procd" if pid is None else f"pid {pid}"
            raise AlreadyRunning(
                f"{who} runs with this run_dir already ({self.config.run_dir}): stop it, or give "
                "this service its own"
            ) from None

    def record(self) -> None:
        """Leave the record by which commands find this service."""
        pid, config = os.getpid(), self.config
        try:
            started = process.start_time(pid)
            record.write(
                *(config.path, pid, started, config.run_dir, config.master_pid_file),
                state_dir=config.state_dir,
            )
            self._has_record = True
        except ProcdError as error:
            logs.warning("no record: commands need a valid config to find us", why=error)

    def write_pids(self, pids: list[int]) -> None:
        """Keep the worker pid file true."""
        if pids == self._pids:
            return
        try:
            pidfile.write_worker_pids(self.config.worker_pid_file, pids)
            self._pids = pids
        except ProcdError as error:
            logs.error("worker pid file not written", why=error)

    def give_back(self) -> None:
        """Remove all of it. Folders that were there before stay, and so does what is kept."""
        if self._owns_ipc:
            shutil.rmtree(self.ipc_dir, ignore_errors=True)
            with suppress(OSError):
                os.rmdir(self._spool_path)  # unless data of kept tasks is in it
        if self._pids is not None:
            with suppress(OSError, ProcdError):
                pidfile.remove(self.config.worker_pid_file)
        if self._has_record:
            record.remove(self.config.path, os.getpid())
        if self.lease.fd >= 0:
            self.lease.release()
        self._pid_file.release()
        if self._run_dir_fd >= 0:
            os.close(self._run_dir_fd)
            self._run_dir_fd = -1


def settled(config: Config) -> Config:
    """Return *config* with the links in its paths of files resolved, as they lead now.

    A release that is switched behind a link does not take the files of a running service along.
    """
    run_dir = Path(os.path.realpath(config.run_dir))
    if len(os.fsencode(run_dir)) > MAX_RUN_DIR:  # a socket in it could not be reached
        run_dir = config.run_dir
    return replace(
        config,
        run_dir=run_dir,
        state_dir=Path(os.path.realpath(config.state_dir)),
        master_pid_file=_in_real_folder(config.master_pid_file),
        worker_pid_file=_in_real_folder(config.worker_pid_file),
    )


def _in_real_folder(path: Path | None) -> Path | None:
    return None if path is None else Path(os.path.realpath(path.parent), path.name)


def owner_of(config: Config) -> tuple[int, int]:
    """Return uid and gid that the processes will have; raises StartFailed."""
    try:
        return process.identity(config.user, config.group)
    except ProcdError as error:
        raise StartFailed(str(error)) from None


def warn_of_root(config: Config) -> None:
    """Say once in the log that the app runs as root, if it does."""
    if owner_of(config)[0] == 0:
        logs.warning("workers run as root", cure="set `user` in the config")
