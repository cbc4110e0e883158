"""A publisher's Ed25519 signature of manifest.json, which devices compare with the keys that they trust."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from clue_mobile.errors import ClueError
from pi_runtime.files import atomic_write, read_small

Sign = Callable[[bytes], bytes]
_MOST = 1 << 16


def keygen(path: Path) -> Path:
    """Write a new private key (PEM, readable by its owner only) to `path` and its public key to `path`.pub.

    Returns the path of the public key. Raises ClueError where one of the files exists or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    public = path.with_name(path.name + ".pub")
    if os.path.lexists(public):
        raise ClueError(f"cannot write {public}: it exists already")
    key = Ed25519PrivateKey.generate()
    atomic_write(path, [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())])
    atomic_write(public, [key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)])
    return public


def signer(path: Path) -> Sign:
    """What signs with the private key in a file (Ed25519, PEM). Raises ClueError for any other file."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = read_small(path, _MOST)
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise ClueError(
            f"the key {path} is encrypted: decrypt it first (openssl pkey -in {path} -out FILE)"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ClueError(f"{path} is no private key in PEM: make one with clue-mobile keygen") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ClueError(f"the key {path} is not Ed25519: make one with clue-mobile keygen")
    return key.sign
