"""Copies a bundle to a device over ssh, whole or not at all, and installs the runtime there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

from clue_mobile.errors import ClueError
from pi_runtime.bundle import Bundle
from pi_runtime.files import sha256_file

_CHUNK = 1 << 18


@dataclass(frozen=True)
class Pushed:
    """path: where the bundle lies on the device. sent: the bytes of the files that were missing there.
    installed: the installer's exit code, None where none was asked for."""

    path: str
    sent: int
    installed: int | None


def push(
    bundle: Path,
    host: str,
    *,
    folder: str = "clue",
    port: int | None = None,
    ssh_options: Sequence[str] = (),
    install: Sequence[str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Pushed:
    """Copy a bundle to `folder` (in the home folder) of `host`, as `ssh` names it, under its own name.

    Every file is compared by SHA-256 on the device; a push that broke off goes on at the file where it was; a
    bundle of that name is replaced in one step. With `install`, the options of the installer, it runs
    afterwards. Needs ssh here, python3 there. Raises ClueError for a damaged bundle, or where ssh or the
    device says no.
    """
    Bundle.open(bundle)
    name = bundle.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ClueError(f"the bundle's folder is called {name!r}: letters, digits, dots, - and _ only")
    if host.startswith("-") or not host:
        raise ClueError(f"{host!r} is no host: write USER@HOST, such as pi@raspberrypi.local")
    files = {str(p.relative_to(bundle)): p for p in sorted(bundle.rglob("*")) if not p.is_dir()}
    for each in files.values():
        if each.is_symlink():
            raise ClueError(f"{each} is a link: a bundle has files only")
    order = {
        "name": name,
        "folder": folder,
        "files": [[inside, sha256_file(path), path.stat().st_size] for inside, path in files.items()],
        "install": None if install is None else list(install),
    }
    command = ["ssh", "-T", *(["-p", str(port)] if port is not None else [])]
    for option in ssh_options:
        command += ["-o", option]
    program = resources.files("clue_mobile.push").joinpath("remote.py").read_text(encoding="utf-8")
    try:
        ssh = subprocess.Popen(
            [*command, "--", host, f"python3 -c {shlex.quote(program)}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise ClueError("ssh is not installed on this computer") from error
    with ssh:
        try:
            return _talk(ssh, host, order, files, progress)
        except BaseException:
            ssh.terminate()
            raise


def _talk(
    ssh: subprocess.Popen[bytes],
    host: str,
    order: dict[str, Any],
    files: dict[str, Path],
    progress: Callable[[int, int, str], None] | None,
) -> Pushed:
    assert ssh.stdin is not None and ssh.stdout is not None  # noqa: PT018  both are pipes
    _write(ssh.stdin, json.dumps(order).encode() + b"\n")
    need: list[str] = _answer(ssh, host)["need"]
    total, done = sum(files[name].stat().st_size for name in need), 0
    for name in need:
        with files[name].open("rb") as stream:
            for chunk in iter(lambda: stream.read(_CHUNK), b""):
                _write(ssh.stdin, chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total, name)
    placed = _answer(ssh, host)["placed"]
    installed = None if order["install"] is None else int(_answer(ssh, host)["installed"])
    return Pushed(placed, done, installed)


def _write(stream: IO[bytes], content: bytes) -> None:
    try:
        stream.write(content)
        stream.flush()
    except BrokenPipeError:
        pass  # the device has said why, or ssh has: `_answer` tells


def _answer(ssh: subprocess.Popen[bytes], host: str) -> dict[str, Any]:
    """The device's next line. Raises ClueError where it is an error or there is none."""
    assert ssh.stdout is not None
    line = ssh.stdout.readline()
    if not line.endswith(b"\n"):
        ssh.terminate()
        code = ssh.wait()
        why = "python3 is missing there" if code == 127 else f"ssh ended with {code}, its message is above"
        raise ClueError(
            f"{host} did not answer: {why}; nothing was changed there but files that wait to go on"
        )
    try:
        said = json.loads(line)
        assert isinstance(said, dict)
    except (ValueError, AssertionError):
        shown = line[:80].decode(errors="replace").strip()
        raise ClueError(
            f"{host} prints {shown!r} before anything else: keep its shell's start-up quiet"
        ) from None
    if "error" in said:
        raise ClueError(f"{host}: {said['error']}")
    return said
