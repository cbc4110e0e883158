"""The key that signs receipts, and the check of a signature: Ed25519 here, ES256 from phones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pi_runtime import files
from pi_runtime.errors import ClueError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# The length of the public key in bytes: Ed25519's own 32, an uncompressed point of P-256 (4, x, y).
KEY_BYTES = {"Ed25519": 32, "ES256": 65}


@dataclass(frozen=True)
class Signer:
    """Signs with the key of one store; `key` is its public half in hex."""

    alg: str
    key: str
    _private: Ed25519PrivateKey

    @staticmethod
    def open(folder: Path) -> Signer:
        """The key `receipt.key` of a store's folder, made on first use (0600, the raw 32 bytes).

        `receipt.pub` beside it has the public half in hex. Call it while holding the store's lock. Raises
        ClueError when the key cannot be read or written, or is damaged.
        """
        path = folder / "receipt.key"
        if not path.exists():
            files.atomic_write(path, [_new_key()])
        try:
            signer = Signer.of(path.read_bytes())
        except OSError as error:
            raise ClueError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ClueError(
                f"{path} is damaged: it must have the 32 bytes of an Ed25519 key; move it away, and a new "
                "key is made, whose receipts need its own receipt.pub to be checked"
            ) from error
        public = folder / "receipt.pub"
        if not public.exists():
            files.atomic_write(public, [f"{signer.key}\n".encode()])
        return signer

    @staticmethod
    def of(raw: bytes) -> Signer:
        """The signer of a private key of 32 bytes. Raises ValueError for another length."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = Ed25519PrivateKey.from_private_bytes(raw)
        return Signer("Ed25519", private.public_key().public_bytes_raw().hex(), private)

    def sign(self, content: bytes) -> str:
        """The signature of the content, 64 bytes in hex."""
        return self._private.sign(content).hex()


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes_raw()


def is_signed(content: bytes, signature: str, alg: str, key: str) -> bool:
    """Whether `signature` (hex of 64 bytes: Ed25519's, or r and s of ES256) is of the content by that key."""
    try:
        raw, public = bytes.fromhex(signature), bytes.fromhex(key)
    except ValueError:
        return False
    if len(raw) != 64 or len(public) != KEY_BYTES.get(alg):
        return False
    return (is_signed_ed25519 if alg == "Ed25519" else _es256)(content, raw, public)


def is_signed_ed25519(content: bytes, signature: bytes, public: bytes) -> bool:
    """Whether `signature` is Ed25519's of the content by the key whose public half, 32 bytes, is given."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _es256(content: bytes, signature: bytes, public: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    try:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
        point.verify(encode_dss_signature(r, s), content, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
