"""Safetensors headers and manifests that lie."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from pi_runtime import ClueError, strict_json, tensors
from pi_runtime.weights import WeightsFile

DATA = np.arange(10, dtype="<f4").tobytes()
GOOD: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F32", "shape": [4], "data_offsets": [24, 40]},
}


def framed(header: Any, data: bytes = DATA, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(framed(GOOD | {"__metadata__": {"format": "1"}}))
    header = tensors.read_header(path)
    assert header.metadata == {"format": "1"}
    assert tensors.read(path, header.tensors["a"]).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert WeightsFile(path)["b"].tolist() == [6, 7, 8, 9]


def test_every_type_of_the_library_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for dtype in set(tensors.DTYPES.values()):
        array = np.array([[0, 1, 1]], dtype)
        path.write_bytes(save({"it": array}))
        found = tensors.read(path, tensors.read_header(path).tensors["it"])
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


def entry(**changes: Any) -> dict[str, Any]:
    return GOOD | {"b": {**GOOD["b"], **changes}}


@pytest.mark.parametrize(("content", "message"), [
    (b"", "it has 0 bytes"),
    (b"1234567", "it has 7 bytes"),
    (framed(GOOD, length=2**63), "its header claims 9,223,372,036,854,775,808 bytes of"),
    (framed(GOOD, length=10_000), "its header claims 10,000 bytes of"),
    (framed(GOOD, DATA[:-1]), "its arrays end at byte"),
    (framed(GOOD, DATA + b"x"), "its arrays end at byte"),
    (framed(b"[]"), "no JSON object"),
    (framed(b"{"), "no sound safetensors file"),
    (framed(b"\xff"), "no sound safetensors file"),
    (framed(b'{"a": 1, "a": 2}'), "'a' is there twice"),
    (framed(b"[" * 100_000), "nested deeper than 64"),
    (framed({"a": [1]}), "is not dtype, shape and data_offsets"),
    (framed(entry(extra=1)), "is not dtype, shape and data_offsets"),
    (framed(entry(dtype="F31")), "is of the type 'F31'"),
    (framed(entry(dtype=["F32"])), "is of the type"),
    (framed(entry(shape=[-4])), "the shape of 'b'"),
    (framed(entry(shape=[4.0])), "the shape of 'b'"),
    (framed(entry(shape=[True] * 2)), "the shape of 'b'"),
    (framed(entry(shape=[1] * 9)), "the shape of 'b'"),
    (framed(entry(shape=[2**40, 2**40, 0], data_offsets=[24, 24])), "is too large"),
    (framed(entry(shape=[2**53 - 1])), "is too large"),
    (framed(entry(shape=[2**64])), "beyond 2.53"),
    (framed(entry(shape=[5])), "which do not fit its shape and type"),
    (framed(entry(data_offsets=[40, 24])), "no begin and end"),
    (framed(entry(data_offsets=[24])), "no begin and end"),
    (framed(entry(data_offsets=[8, 24])), "'b' begins at byte"),  # overlaps the end of a
    (framed(entry(data_offsets=[0, 16])), "begins at byte"),
    (framed(entry(data_offsets=[28, 44]), DATA + b"1234"), "'b' begins at byte"),  # a hole
    (framed(entry(data_offsets=[2**40, 2**40 + 16])), "'b' begins at byte"),
    (framed(GOOD | {"__metadata__": {"a": 1}}), "its metadata are not strings"),
    (framed(GOOD | {"__metadata__": []}), "its metadata are not strings"),
])  # fmt: skip
def test_a_lying_header_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ClueError, match=f"cannot read .*a.safetensors: .*{message}"):
        WeightsFile(path)


def test_no_file_a_pipe_and_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("gone", "pipe", "."):
        with pytest.raises(ClueError, match="cannot read"):
            WeightsFile(tmp_path / name)


def test_a_file_that_shrinks_while_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(framed(GOOD))
    arrays = WeightsFile(path)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 4)
    with pytest.raises(ClueError, match="it has become shorter"):
        arrays["b"]


@pytest.mark.parametrize(("text", "message"), [
    ('{"a": 1, "b": {"c": 1, "c": 1}}', "'c' is there twice"),
    ("[" * 65 + "]" * 65, "nested deeper than 64"),
    ("[" * 2_000_000, "nested deeper than 64|more than"),
    ('{"a": ' * 65 + "1" + "}" * 65, "nested deeper than 64"),
    ("[1e400]", "out of range"), ("[-1e999]", "out of range"), ("[NaN]", "no JSON number"),
    ("[Infinity]", "no JSON number"), ("[9007199254740992]", "beyond"), ("[-9007199254740992]", "beyond"),
    ("[" + "9" * 5000 + "]", "beyond 2.53"), ('["\\ud800"]', "half a surrogate"), ('["a', "Unterminated"),
    ('{"\\udc00": 1}', "half a surrogate"), ("", "Expecting value"), ("[1]" + " " * 2_000_000, "more than"),
])  # fmt: skip
def test_json_with_more_than_one_meaning_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strict_json.loads(text.encode("utf-8", "surrogatepass"), 1_000_000)


def test_json_is_what_json_is() -> None:
    text = '{"a": ["[[[[{{{{\\"", 1, -2.5, true, null, "\\ud83d\\ude00"], "b": 9007199254740991}'
    assert strict_json.loads(text.encode(), 1000) == json.loads(text)
    assert strict_json.loads(("[" * 64 + "]" * 64).encode(), 1000)
