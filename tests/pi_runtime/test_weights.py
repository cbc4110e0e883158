from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from pi_runtime import ClueError
from pi_runtime.files import sha256_file
from pi_runtime.weights import WeightsFile, write

ARRAYS = {
    "params": np.arange(7, dtype=np.float32),
    "buffers": np.array([[1, 2], [3, 4]], np.float32),
    "b": np.array(5, np.float32),
}


def test_files_are_byte_for_byte_those_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    digest = write(path, ARRAYS)
    assert path.read_bytes() == save(dict(sorted(ARRAYS.items())))
    assert digest == sha256_file(path)


def test_arrays_come_back_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write(path, ARRAYS | {"params": ARRAYS["params"][::-1]})  # not contiguous
    found = WeightsFile(path)
    assert sorted(found) == ["b", "buffers", "params"]
    assert found.shape("buffers") == (2, 2)
    assert found.shape("more") is None
    assert found["params"].tolist() == [6, 5, 4, 3, 2, 1, 0]
    with pytest.raises(KeyError):
        found["more"]
    assert {key: array.tolist() for key, array in load_file(path).items()} == {
        key: found[key].tolist() for key in found
    }


def test_a_file_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    for name in ("w.safetensors", "gone.safetensors"):
        with pytest.raises(ClueError, match=f"cannot read .*{name}"):
            WeightsFile(tmp_path / name)
