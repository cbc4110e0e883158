from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clue_mobile.bundle.signature import keygen, signer
from clue_mobile.bundle.writer import BundleWriter
from clue_mobile.errors import ClueError
from clue_mobile.methods import amounts
from pi_runtime import trust


def test_what_keygen_makes_signs_and_is_trusted(tmp_path: Path) -> None:
    private = tmp_path / "publisher.pem"
    public = keygen(private)
    assert private.stat().st_mode & 0o777 == 0o600
    (key,) = trust.read_keys(public)
    assert len(key) == 32
    with BundleWriter(tmp_path / "a.clue") as writer:
        writer.commit({"name": "a"}, signer(private))
    content = (tmp_path / "a.clue" / "manifest.json").read_bytes()
    trust.check(tmp_path / "a.clue", content, [public])
    with pytest.raises(ClueError, match="was changed after it was signed"):
        trust.check(tmp_path / "a.clue", content + b" ", [public])


def test_keys_are_not_overwritten(tmp_path: Path) -> None:
    keygen(tmp_path / "a.pem")
    with pytest.raises(ClueError, match="exists already"):
        keygen(tmp_path / "a.pem")
    (tmp_path / "a.pem.pub").unlink()
    with pytest.raises(ClueError, match="exists already"):
        keygen(tmp_path / "a.pem")


def test_other_files_are_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ClueError, match=r"cannot read .*key"):
        signer(path)
    path.write_text("nothing")
    with pytest.raises(ClueError, match="is no private key in PEM"):
        signer(path)
    public = keygen(tmp_path / "a.pem")
    with pytest.raises(ClueError, match="is no private key in PEM"):
        signer(public)


def test_encrypted_and_other_keys_are_named(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path = tmp_path / "key"
    form = (Encoding.PEM, PrivateFormat.PKCS8)
    path.write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(*form, BestAvailableEncryption(b"x")))
    with pytest.raises(ClueError, match="is encrypted: decrypt it first"):
        signer(path)
    path.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*form, NoEncryption()))
    with pytest.raises(ClueError, match="is not Ed25519"):
        signer(path)


def test_the_least_numbers_of_images_are_those_of_the_study() -> None:
    """Each line "METHOD, forgetting 10, all test images: all sufficed" of the table, and no other method."""
    table = Path(__file__).parents[2] / "benchmarks" / "methods" / "amount" / "table.md"
    known = table.read_text(encoding="utf-8").splitlines()
    lines = [line for line in known if "forgetting 10, all test images: " in line]
    sufficed = {line[2:].split(",")[0].split(" (")[0] for line in lines if not line.endswith("none sufficed")}
    assert sufficed == {"BE", "CLUE"}
    assert {
        name for name in ("ga", "rl", "be", "bs", "lu", "unsir", "clue", "ssd") if amounts.least(name)
    } == {name.lower() for name in sufficed}
    assert amounts.least("clue") == 36  # "Digit 3 has 111 training and 36 test images"


def test_the_command_makes_a_pair(tmp_path: Path) -> None:
    import sys

    run = subprocess.run(
        [sys.executable, "-c", "from clue_mobile.cli import main; main()", "keygen", str(tmp_path / "k.pem")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Keep it secret" in run.stdout
    assert (tmp_path / "k.pem.pub").read_text().startswith("-----BEGIN PUBLIC KEY-----")
