from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import golden_receipts
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pi_runtime.cli import main
from pi_runtime.errors import ClueError
from pi_runtime.receipts import canonical, receipt
from pi_runtime.receipts.check import check
from pi_runtime.receipts.signing import Signer

GOLDEN: dict[str, Any] = json.loads(golden_receipts.FILE.read_text(encoding="utf-8"))
TEXTS: list[str] = [each["text"] for each in GOLDEN["receipts"]]
FORGET = TEXTS[0].encode()
KEY: str = GOLDEN["public_key"]


def named(texts: list[str]) -> dict[str, bytes]:
    return {f"{number:06d}.json": text.encode() for number, text in enumerate(texts, 1)}


def resigned(text: str, signer: Signer | None = None, **changes: Any) -> str:
    """A receipt with other content, signed again: what a forger with the key can do."""
    content = {**json.loads(text), **changes}
    del content["signature"]
    signed = (signer or Signer.of(golden_receipts.KEY)).sign(canonical.encode(content))
    return canonical.dumps({**content, "signature": signed})


# --- golden


def test_receipts_are_the_golden_ones_byte_for_byte() -> None:
    assert golden_receipts.golden() == GOLDEN


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_a_golden_receipt_holds_alone_and_in_its_chain(number: int) -> None:
    content = TEXTS[number].encode()
    assert check(content).problem is None
    after = json.loads(content)["weights"]["after"]
    verdict = check(content, key=KEY, chain=named(TEXTS), weights=after)
    assert verdict.problem is None
    assert len(verdict.proven) == 4


# --- what was changed


def test_a_flipped_bit_in_any_byte_is_found() -> None:
    for place in range(len(FORGET)):
        changed = bytearray(FORGET)
        changed[place] ^= 0x20 if place % 8 else 0x01  # 0x20 makes another letter case, 0x01 another digit
        assert check(bytes(changed)).problem is not None, place


@pytest.mark.parametrize("content", [b"", FORGET[:-1], FORGET + b"\n", FORGET + b"}", b"[]", b'{"schema":1}'])
def test_a_file_that_is_no_whole_receipt_does_not_hold(content: bytes) -> None:
    assert check(content).problem is not None


def test_content_beyond_the_schema_does_not_hold_even_when_it_is_signed() -> None:
    for changes in ({"samples": ["00"]}, {"statement": "It is certain."}, {"created": "yesterday"}):
        assert "is no receipt" in str(check(resigned(TEXTS[0], **changes).encode()).problem)


def test_a_newer_version_is_named() -> None:
    problem = check(resigned(TEXTS[0], schema=2).encode()).problem
    assert problem is not None
    assert "newer runtime" in problem


def test_another_key_or_other_weights_are_found() -> None:
    other = Signer.of(bytes(32))
    assert "not by" in str(check(FORGET, key=other.key).problem)
    # Signed anew with a key of the forger's: only --key shows it.
    forged = resigned(TEXTS[0], other, key=other.key).encode()
    assert check(forged).problem is None
    assert "is signed by the key" in str(check(forged, key=KEY).problem)
    assert "weights file is not" in str(check(FORGET, weights="00" * 32).problem)


# --- the chain


def broken(texts: list[str]) -> str:
    return str(check(texts[-1].encode(), chain=named(texts)).problem)


def test_a_receipt_that_was_removed_put_in_or_replaced_breaks_the_chain() -> None:
    assert "no number 2" in broken([TEXTS[0], *TEXTS[2:]])
    assert "no number 1" in broken(TEXTS[1:])
    assert "both number 1" in broken([TEXTS[0], *TEXTS])
    replaced = resigned(TEXTS[1], created="2026-01-02T03:04:06+00:00")
    assert "broken at 000003.json" in broken([TEXTS[0], replaced, *TEXTS[2:]])
    assert "000002.json of the chain does not hold" in broken([TEXTS[0], TEXTS[1][:-1], *TEXTS[2:]])
    other = Signer.of(bytes(32))
    assert "another key" in broken([resigned(TEXTS[0], other, key=other.key), *TEXTS[1:]])
    assert "another receipt as number 2" in str(check(TEXTS[1].encode(), chain=named([TEXTS[0]])).problem)


def test_a_chain_proves_nothing_about_receipts_after_its_end() -> None:
    verdict = check(FORGET, chain=named(TEXTS[:2]))
    assert verdict.problem is None
    assert any("a chain does not show its end" in sentence for sentence in verdict.not_proven)


# --- sentences


def test_the_sentences_say_what_is_proven_stated_and_not_proven() -> None:
    verdict = check(FORGET)
    stated, left = " ".join(verdict.stated), " ".join(verdict.not_proven)
    assert "the class 'dog\u2019s' with 300 samples" in stated
    assert "from 96.9 % to 33.3 %" in stated
    assert "30 samples of the request that the method never saw, it went from 90.0 % to 10.0 %" in stated
    assert "Not erased: store.db (kept until the request is sealed)" in stated
    assert "energy not measured" in stated
    assert "no formal guarantee" in left
    assert "Who owns the key was not checked" in left
    # without held-out samples it says so
    assert any("No samples were held out" in sentence for sentence in check(TEXTS[2].encode()).not_proven)
    sealed = check(TEXTS[1].encode())
    assert "Erased: generations/000001.safetensors, keys/2.key" in " ".join(sealed.stated)
    assert "Flash storage" in " ".join(sealed.not_proven)


# --- keys


def test_the_key_is_made_on_first_use_and_private(tmp_path: Path) -> None:
    signer = Signer.open(tmp_path)
    path = tmp_path / "receipt.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    assert (tmp_path / "receipt.pub").read_text() == f"{signer.key}\n"
    (tmp_path / "receipt.pub").unlink()
    assert Signer.open(tmp_path).key == signer.key
    assert (tmp_path / "receipt.pub").read_text() == f"{signer.key}\n"
    path.write_bytes(b"short")
    with pytest.raises(ClueError, match="damaged"):
        Signer.open(tmp_path)


def test_es256_receipts_of_phones_are_checked_too() -> None:
    private = ec.derive_private_key(7, ec.SECP256R1())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    content = {**json.loads(TEXTS[0]), "alg": "ES256", "key": point.hex()}
    del content["signature"]
    r, s = decode_dss_signature(private.sign(canonical.encode(content), ec.ECDSA(hashes.SHA256())))
    signature = (r.to_bytes(32, "big") + s.to_bytes(32, "big")).hex()
    text = canonical.dumps({**content, "signature": signature})
    assert check(text.encode(), key=point.hex()).problem is None
    wrong = canonical.dumps({**content, "signature": signature[:-2] + "00", "number": 2})
    assert "not right for the key" in str(check(wrong.encode()).problem)
    # a point that is not on the curve
    off = canonical.dumps({**content, "key": "04" + "11" * 64, "signature": signature})
    assert "not right for the key" in str(check(off.encode()).problem)


# --- the command


def test_the_command_needs_neither_bundle_nor_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLUE_BUNDLE", raising=False)
    folder = tmp_path / "receipts"
    folder.mkdir()
    for name, content in named(TEXTS).items():
        (folder / name).write_bytes(content)
    (tmp_path / "receipt.pub").write_text(f"{KEY}\n")
    file = folder / "000001.json"
    assert main(["verify", str(file), "--chain", str(folder), "--key", "receipt.pub"]) == 0
    assert "holds.\nProven:\n- Nothing in this receipt was changed" in capsys.readouterr().out
    assert main(["verify", str(file), "--json", "--key", KEY.upper()]) == 0
    assert json.loads(capsys.readouterr().out)["holds"] is True
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"other")
    assert main(["verify", str(file), "--weights", str(weights)]) == 1
    assert hashlib.sha256(b"other").hexdigest() in capsys.readouterr().out
    file.write_bytes(file.read_bytes().replace(b"96.875", b"95.875"))
    assert main(["verify", str(file), "--chain", str(folder)]) == 1
    assert "does NOT hold: it was changed after it was signed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.json"], "cannot read the receipt missing.json"),
        ([__file__, "--key", "12"], "is no public key"),
        ([__file__, "--chain", "/nowhere"], "/nowhere has no receipts"),
        ([__file__, "--weights", "/nowhere"], "cannot read /nowhere"),
    ],
)
def test_what_the_user_can_put_right_is_one_sentence(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_previous_is_the_hash_of_the_whole_receipt_before() -> None:
    previous = [json.loads(text)["previous"] for text in TEXTS]
    assert previous == [receipt.FIRST, *(hashlib.sha256(text.encode()).hexdigest() for text in TEXTS[:-1])]
