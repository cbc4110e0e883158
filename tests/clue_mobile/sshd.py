"""A real sshd on a free port of this computer, with a key and a user made for the test."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_PI = 65501  # the number of the test's user, where the test runs as root


@dataclass(frozen=True)
class Device:
    """host: USER@127.0.0.1; home: that user's home folder, where it is one of the test's own."""

    host: str
    port: int
    options: tuple[str, ...]
    home: Path


def _program() -> tuple[Path, dict[str, str]]:
    """sshd and its environment: installed, or openssh-server and libwrap0 unpacked in CLUE_SSHD."""
    unpacked = os.environ.get("CLUE_SSHD")
    if unpacked:
        libraries = ":".join(str(p) for p in (Path(unpacked) / "usr" / "lib").glob("*-linux-gnu"))
        return Path(unpacked).resolve() / "usr/sbin/sshd", {"LD_LIBRARY_PATH": libraries}
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("no sshd: install openssh-server, or unpack it and name the folder in CLUE_SSHD")
    return Path(found), {}


def _command(sshd: Path, configuration: Path, folder: Path, home: Path) -> list[str]:
    """As root sshd wants a user sshd and /run/sshd: it gets both, and a user pi, in a mount namespace."""
    serve = [str(sshd), "-D", "-e", "-f", str(configuration)]
    if os.geteuid() != 0:
        return serve
    users = folder / "passwd"
    others = [
        line
        for line in Path("/etc/passwd").read_text().splitlines()
        if line.partition(":")[0] not in ("sshd", "pi")
    ]
    added = [f"pi:x:{_PI}:{_PI}::{home}:/bin/bash", "sshd:x:65502:65502::/run/sshd:/usr/sbin/nologin"]
    users.write_text("\n".join([*others, *added]) + "\n")
    for path in (home, *home.rglob("*")):
        os.chown(path, _PI, _PI)
    script = (
        'mount --bind "$1" /etc/passwd && mount -t tmpfs none /run && mkdir -m 755 /run/sshd && shift && '
        'exec "$@"'
    )
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(users), *serve]


@contextlib.contextmanager
def device() -> Iterator[Device]:
    """Run sshd; skips the test with a reason where this computer cannot."""
    for tool in ("ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: install openssh-client")
    sshd, environment = _program()
    # not below pytest's folders: these are closed to the test's user
    folder = Path(tempfile.mkdtemp(prefix="clue-sshd-"))
    folder.chmod(0o755)
    process = None
    try:
        home = folder / "home"
        home.mkdir()
        for name in ("host", "user"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(key, check=True)
        keys = home / "authorized_keys"
        keys.write_text((folder / "user.pub").read_text())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        configuration = folder / "sshd_config"
        configuration.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {keys}\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        )
        log = folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                _command(sshd, configuration, folder, home), env={**os.environ, **environment}, stderr=out
            )
        _wait_for(process, port, log)
        host_key = " ".join((folder / "host.pub").read_text().split()[:2])
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {host_key}\n")
        user = "pi" if os.geteuid() == 0 else getpass.getuser()
        options = (f"IdentityFile={folder / 'user'}", f"UserKnownHostsFile={known}", "BatchMode=yes")
        yield Device(f"{user}@127.0.0.1", port, options, home if user == "pi" else Path.home())
    finally:
        if process is not None:
            process.terminate()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.skip(f"sshd does not start here: {log.read_text(errors='replace')[-300:]}")
