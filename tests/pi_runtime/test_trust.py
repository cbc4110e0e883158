"""Signed bundles, hostile manifests, and stores that are not their owner's alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
import toy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pi_runtime import Bundle, ClueError, Runtime, manifest, private, trust

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def listed(path: Path, *keys: Ed25519PrivateKey, pem: bool = True) -> Path:
    def text(key: Ed25519PrivateKey) -> str:
        public = key.public_key()
        if not pem:
            return public.public_bytes_raw().hex() + " a name\n"
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    path.write_text("# keys\n\n" + "".join(map(text, keys)))
    path.chmod(0o600)
    return path


def sign(bundle: Path, key: Ed25519PrivateKey = KEY) -> Path:
    (bundle / "manifest.sig").write_bytes(key.sign((bundle / "manifest.json").read_bytes()))
    return bundle


@pytest.mark.parametrize("pem", [True, False])
def test_a_bundle_signed_by_a_listed_key_is_opened(own_bundle: Path, tmp_path: Path, pem: bool) -> None:
    trusted = listed(tmp_path / "keys", OTHER, KEY, pem=pem)
    assert Bundle.open(sign(own_bundle), trusted=[trusted]).name == "toy"


def test_a_runtime_takes_the_list_too(own_bundle: Path, tmp_path: Path) -> None:
    trusted = [listed(tmp_path / "keys", KEY)]
    with pytest.raises(ClueError, match="is not signed, and only signed ones are trusted"):
        Runtime.open(own_bundle, tmp_path / "store", trusted=trusted)
    assert not (tmp_path / "store").exists()
    with Runtime.open(sign(own_bundle), tmp_path / "store", threads=1, trusted=trusted) as runtime:
        assert runtime.bundle.name == "toy"


def test_others_are_refused_before_anything_is_parsed(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = [listed(tmp_path / "keys", KEY)]

    def parsed(*_: Any) -> Any:
        raise AssertionError("parsed before it was trusted")

    monkeypatch.setattr(manifest, "parse", parsed)
    with pytest.raises(ClueError, match="is not signed, and only"):
        Bundle.open(own_bundle, trusted=trusted)
    sign(own_bundle, OTHER)
    with pytest.raises(ClueError, match="not signed by a trusted key, or was changed"):
        Bundle.open(own_bundle, trusted=trusted)
    sign(own_bundle)
    with (own_bundle / "manifest.json").open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(ClueError, match="not signed by a trusted key, or was changed"):
        Bundle.open(own_bundle, trusted=trusted)
    for content in (b"", b"x" * 64, b"x" * 65):
        (own_bundle / "manifest.sig").write_bytes(content)
        with pytest.raises(ClueError, match=r"manifest.sig|not signed by a trusted key"):
            Bundle.open(own_bundle, trusted=trusted)


def test_every_list_must_agree(own_bundle: Path, tmp_path: Path) -> None:
    both = [listed(tmp_path / "system", KEY), listed(tmp_path / "own", OTHER)]
    with pytest.raises(ClueError, match=r"not signed by a trusted key.*own"):
        Bundle.open(sign(own_bundle), trusted=both)
    listed(tmp_path / "own", OTHER, KEY)
    Bundle.open(own_bundle, trusted=both)


@pytest.mark.parametrize(("content", "message"), [
    (b"", "has no public key"), (b"# nothing\n", "has no public key"), (b"abc\n", "is no list of"),
    (b"0" * 63, "is no list of public keys"), (b"\xff" * 64, "is no list of public keys"),
    (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"),
])  # fmt: skip
def test_lists_that_are_none(own_bundle: Path, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ClueError, match=message):
        Bundle.open(sign(own_bundle), trusted=[path])


def test_a_list_that_others_may_write_or_that_is_missing(own_bundle: Path, tmp_path: Path) -> None:
    path = listed(tmp_path / "keys", KEY)
    path.chmod(0o666)
    with pytest.raises(ClueError, match="others may write to the list"):
        Bundle.open(sign(own_bundle), trusted=[path])
    with pytest.raises(ClueError, match=r"cannot read .*gone"):
        Bundle.open(own_bundle, trusted=[tmp_path / "gone"])


def test_a_key_of_another_kind_is_no_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    path = tmp_path / "keys"
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    path.chmod(0o600)
    with pytest.raises(ClueError, match="is not Ed25519"):
        trust.read_keys(path)


def test_lists_of_the_system_and_of_the_store_hold_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "SYSTEM_LIST", tmp_path / "etc")
    assert trust.lists(tmp_path, None) == []
    listed(tmp_path / "trusted_keys", KEY)
    assert trust.lists(tmp_path) == [tmp_path / "trusted_keys"]
    (tmp_path / "etc").symlink_to("nowhere")  # a broken list is no missing one
    assert trust.lists(tmp_path) == [tmp_path / "etc", tmp_path / "trusted_keys"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_the_openssl_command_makes_the_same_signature(own_bundle: Path, tmp_path: Path) -> None:
    """The commands of docs/security.md."""
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    for command in (
        ["genpkey", "-algorithm", "ed25519", "-out", str(key)],
        ["pkey", "-in", str(key), "-pubout", "-out", str(public)],
        ["pkeyutl", "-sign", "-inkey", str(key), "-rawin", "-in", str(own_bundle / "manifest.json"),
         "-out", str(own_bundle / "manifest.sig")],
    ):  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    public.chmod(0o600)
    assert Bundle.open(own_bundle, trusted=[public]).name == "toy"


# --- the manifest


def written(bundle: Path, content: bytes) -> Path:
    (bundle / "manifest.json").write_bytes(content)
    (bundle / "manifest.sha256").write_text(hashlib.sha256(content).hexdigest())
    return bundle


def edited(bundle: Path, *path: Any, to: Any) -> Path:
    def change(content: dict[str, Any]) -> None:
        here: Any = content
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = to

    return toy.edit(bundle, change)


def test_a_key_that_is_there_twice(own_bundle: Path) -> None:
    content = (own_bundle / "manifest.json").read_bytes()
    with pytest.raises(ClueError, match=r"manifest.json is not valid JSON .the key 'name' is there twice"):
        Bundle.open(written(own_bundle, content.replace(b'"name": "toy"', b'"name": "a", "name": "toy"', 1)))


def test_deep_and_huge_manifests(own_bundle: Path) -> None:
    body: Any = [{"run": "step"}]
    for _ in range(40):
        body = [{"loop": "repeat", "count": 1, "body": body}]
    with pytest.raises(ClueError, match="nested deeper than 64"):
        Bundle.open(edited(own_bundle, "plan", to=body))
    with pytest.raises(ClueError, match="nested deeper than 64"):
        Bundle.open(written(own_bundle, b"[" * 1_000_000))
    with (own_bundle / "manifest.json").open("wb") as stream:
        stream.truncate(manifest.MAX_BYTES + 1)
    with pytest.raises(ClueError, match=r"has 16,777,217 bytes, up to 16,777,216 are allowed"):
        Bundle.open(own_bundle)


@pytest.mark.parametrize(("path", "value", "message"), [
    (("method", "batch"), 4.0, "method/batch: 4.0 is not of type 'integer'"),
    (("method", "batch"), True, "method/batch: True is not of type 'integer'"),
    (("weights", "bytes"), 2**53, "beyond 2.53"),
    (("values", "velocity", "shape"), [2**40], "more than 2,147,483,648 elements"),
    (("state", 1, "offset"), 10**9, "state entry linear.bias ends behind params"),
    (("name",), "\x1b]0;owned\x07", "name: a text has control characters"),
    (("model", "classes"), ["a\x00", "b", "c"], "model: a text has control characters"),
    (("files", 0, "file"), "../toy.clue/README.md", "files/0/file"),
    (("files", 0, "file"), "/etc/passwd", "files/0/file"),
    (("files", 0, "file"), "./README.md", "no plain path inside the bundle"),
    (("files", 0, "file"), "a//b", "no plain path inside the bundle"),
    (("files", 0, "file"), "a" * 300, "no plain path inside the bundle"),
])  # fmt: skip
def test_hostile_values(own_bundle: Path, path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(ClueError, match=message):
        Bundle.open(edited(own_bundle, *path, to=value))


def test_a_file_that_is_listed_twice(own_bundle: Path) -> None:
    with pytest.raises(ClueError, match="a file is listed twice"):
        Bundle.open(toy.edit(own_bundle, lambda m: m["files"].append(m["files"][0])))


def test_links_and_special_files_in_a_bundle(own_bundle: Path) -> None:
    (own_bundle / "golden").rename(own_bundle / "elsewhere")
    (own_bundle / "golden").symlink_to("elsewhere")  # inside, but where it leads can be changed later
    with pytest.raises(ClueError, match="golden is a link, and a bundle has none"):
        Bundle.open(own_bundle)
    (own_bundle / "golden").unlink()
    (own_bundle / "elsewhere").rename(own_bundle / "golden")
    (own_bundle / "README.md").unlink()
    os.mkfifo(own_bundle / "README.md")
    with pytest.raises(ClueError, match=r"README.md is no regular file"):
        Bundle.open(own_bundle)
    (own_bundle / "manifest.json").rename(own_bundle / "real.json")
    (own_bundle / "manifest.json").symlink_to("real.json")
    with pytest.raises(ClueError, match=r"it has no manifest.json"):
        Bundle.open(own_bundle)


# --- the store


@pytest.fixture
def store(own_bundle: Path, tmp_path: Path) -> Path:
    with Runtime.open(own_bundle, tmp_path / "store", threads=1) as runtime:
        runtime.add(toy.images(2, 0), "cat")
    return tmp_path / "store"


def test_what_others_may_read_is_closed(store: Path, own_bundle: Path) -> None:
    store.chmod(0o755)
    (store / "store.db").chmod(0o644)
    (store / "generations").chmod(0o750)
    with Runtime.open(own_bundle, store, threads=1):
        for path in (store, *store.rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("name", [".", "store.db", "generations", "keys"])
def test_what_others_may_write_is_refused(store: Path, own_bundle: Path, name: str) -> None:
    path = store / name
    path.chmod(0o777 if path.is_dir() else 0o660)
    with pytest.raises(ClueError, match="others may write to"):
        Runtime.open(own_bundle, store, threads=1)


def test_links_in_the_store_are_refused(store: Path, own_bundle: Path) -> None:
    (store / "store.db").rename(store.parent / "moved.db")
    (store / "store.db").symlink_to(store.parent / "moved.db")
    with pytest.raises(ClueError, match="is a link or a special file: a store has none"):
        Runtime.open(own_bundle, store, threads=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", [".", "store.db"])
def test_a_store_of_another_user_is_refused(store: Path, own_bundle: Path, name: str) -> None:
    os.chown(store / name, 65_534, 65_534)
    with pytest.raises(ClueError, match="belongs to nobody, not to root who runs this"):
        Runtime.open(own_bundle, store, threads=1)


def test_a_folder_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    private.check(tmp_path / "none")


def test_a_database_with_statements_of_its_own_is_refused(store: Path, own_bundle: Path) -> None:
    with sqlite3.connect(store / "store.db") as database:
        database.execute("CREATE TRIGGER spy AFTER INSERT ON samples BEGIN DELETE FROM requests; END")
    database.close()
    with pytest.raises(ClueError, match=r"the store .* has the trigger spy, which no runtime makes"):
        Runtime.open(own_bundle, store, threads=1)


def test_names_are_data(own_bundle: Path, tmp_path: Path) -> None:
    name = "x'); DROP TABLE samples; --"
    edited(own_bundle, "model", "classes", to=[name, '"', "%s"])
    with Runtime.open(own_bundle, tmp_path / "store", threads=1) as runtime:
        runtime.add(toy.images(5, 0), name)
        assert runtime.forget(name, seed=1, verify_at_most=100).status == "done"
        assert runtime.forgotten == [name]
        assert len(runtime.store.sample_ids(0)) == 5


def test_a_damaged_database_is_an_error_in_words_or_none(store: Path, own_bundle: Path) -> None:
    """Bytes all over the file are changed; what SQLite does not notice is a value like any other."""
    import numpy as np

    with Runtime.open(own_bundle, store, threads=1):
        pass
    whole = (store / "store.db").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(25):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 40):
            content[place] = random.integers(0, 256)
        for path in store.glob("store.db-*"):
            path.unlink()
        (store / "store.db").write_bytes(content)
        try:
            with Runtime.open(own_bundle, store, threads=1) as runtime:
                runtime.log()
                runtime.store.requests()
        except ClueError:
            refused += 1
    assert refused > 0
