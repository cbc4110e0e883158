"""Folders and archives of images, and how `clue-pi add` and `predict` read them."""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from PIL import Image

from pi_runtime import Bundle, ClueError, Runtime, cli
from pi_runtime.images import Reader, archive, folders

SHAPE = (3, 4, 5)


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path)
    return path


# --- folders


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in (
        "a.png",
        ".b.png",
        "._a.png",
        ".thumbnails/c.png",
        "d/.e.png",
        "d/f.PNG",
        "d/readme.txt.svg",
    ):
        picture(tmp_path / name.replace(".svg", ".png")).rename(tmp_path / name)
    assert [str(path.relative_to(tmp_path)) for path in folders.find(tmp_path)] == ["a.png", "d/f.PNG"]


def test_links_inside_are_files_and_links_outside_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    picture(folder / "a.png")
    (folder / "b.png").symlink_to("a.png")
    assert [path.name for path in folders.find(folder)] == ["a.png", "b.png"]
    (folder / "c.png").symlink_to(picture(tmp_path / "secret.png"))
    with pytest.raises(ClueError, match=r"c.png is a link out of the folder: name .*secret.png itself"):
        folders.find(folder)
    (folder / "c.png").unlink()
    (folder / "d.png").symlink_to("nothing.png")
    with pytest.raises(ClueError, match=r"d.png is a link that leads nowhere"):
        folders.find(folder)


def test_loops_end(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "a.png")
    (tmp_path / "a" / "again").symlink_to("..")
    (tmp_path / "a" / "folder.png").symlink_to("..")
    assert [path.name for path in folders.find(tmp_path)] == ["a.png"]
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    with pytest.raises(ClueError, match=r"self.png is a link that leads nowhere"):
        folders.find(tmp_path)


def test_a_pipe_in_a_folder_is_no_image(tmp_path: Path, opened_bundle: Bundle) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ClueError, match=r"a.png: it is no regular file"):
        list(Reader([tmp_path], opened_bundle))


def test_the_rule_of_the_bundle_decides_what_is_cut_off(tmp_path: Path, opened_bundle: Bundle) -> None:
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    Image.fromarray(wide).save(tmp_path / "a.png")
    cropping = dataclasses.replace(opened_bundle, fit="center-crop")
    (cropped,), (stretched,) = (list(Reader([tmp_path], one)) for one in (cropping, opened_bundle))
    assert np.all(cropped.images == 200)
    assert stretched.images[0, 0, 0, 0] < 100


# --- archives


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(f"{name}.npy", content)
    return path


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), np.uint8)


def read(path: Path, at_once: int = 3) -> Any:
    return list(archive.read(path, SHAPE, 2, at_once))


def test_archives_come_in_pieces(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=npy(PIXELS), y=npy(np.arange(7) % 2))
    parts = read(path)
    assert [len(pixels) for pixels, _, _ in parts] == [3, 3, 1]
    assert [first for _, _, first in parts] == [0, 3, 6]
    assert np.array_equal(np.concatenate([pixels for pixels, _, _ in parts]), PIXELS)
    assert np.concatenate([labels for _, labels, _ in parts]).tolist() == [0, 1, 0, 1, 0, 1, 0]


def lying(shape: str) -> bytes:
    """A header that claims another shape than the data have."""
    return npy(PIXELS).replace(b"(7, 4, 5, 3)", shape.encode().ljust(12))


@pytest.mark.parametrize(("members", "message"), [
    ({"x": lying("(9,4,5,3)")}, "is no readable .npz archive"),
    ({"x": lying("(-1,4,5,3)")}, "is no readable .npz archive"),
    ({"x": lying("(7**99,4,5,3)")}, "is no readable .npz archive"),
    ({"x": npy(PIXELS)[:-1]}, "is no readable .npz archive"),
    ({"x": npy(PIXELS) + b"more"}, "is no readable .npz archive"),
    ({"x": b"no array"}, "is no readable .npz archive"),
    ({"x": npy(np.array([None, 1]))}, "is no readable .npz archive of plain arrays"),
    ({"x": npy(PIXELS.astype(np.float64))}, r"x is float64 \[7, 4, 5, 3\], it must be uint8"),
    ({"x": npy(np.full(PIXELS.shape, np.nan, np.float32))}, r"x is float32 \[7, 4, 5, 3\], it must be uint8"),
    ({"x": npy(PIXELS.astype(np.uint16))}, "x is uint16"),
    ({"x": npy(np.asfortranarray(PIXELS))}, "x is stored column by column: save numpy.ascontiguousarray"),
    ({"x": npy(PIXELS), "y": npy(np.full(7, 2))}, "y has 2, which is out of range: the classes are 0 to 1"),
    ({"x": npy(PIXELS), "y": npy(np.full(7, -1))}, "y has -1, which is out of range"),
    ({"x": npy(PIXELS), "y": npy(np.zeros(6, int))}, r"y is int64 \[6\]"),
    ({"x": npy(PIXELS), "y": npy(np.array(["a"] * 7))}, r"y is <U1 \[7\]"),
])  # fmt: skip
def test_archives_that_lie_are_refused(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        read(npz(tmp_path / "a.npz", **members))


def test_a_member_that_is_there_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as made:
        made.writestr("x.npy", npy(PIXELS))
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("x.npy", npy(PIXELS))
    with pytest.raises(ClueError, match=r"is no readable .npz archive"):
        read(tmp_path / "a.npz")


def test_a_damaged_archive_gives_no_image_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x.npy", npy(PIXELS))
    content = bytearray(path.read_bytes())
    content[content.index(PIXELS.tobytes()) + 400] ^= 1  # in the last of the images
    path.write_bytes(content)
    seen = []
    with pytest.raises(ClueError, match=r"is no readable .npz archive"):
        seen += list(archive.read(path, SHAPE, 2, 1))
    assert not seen


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    path = npz(tmp_path / "a.npz", x=npy(np.zeros((400_000, 4, 5, 3), np.uint8)))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ClueError, match="has 24,000,000 bytes: up to 1,000,000 are allowed"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 30)
    monkeypatch.setattr(archive, "MAX_IMAGES", 1000)
    with pytest.raises(ClueError, match="has 400,000 images: up to 1,000"):
        read(path)


# --- the commands


@pytest.fixture
def pi(toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(command: str, *words: object, bundle: Path = toy_bundle) -> tuple[int, str, str]:
        arguments = [
            command,
            str(bundle),
            *map(str, words),
            "--store",
            str(tmp_path / "store"),
            "--threads",
            "1",
        ]
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_an_unreadable_image_stops_or_is_skipped(tmp_path: Path, pi: Any) -> None:
    for number in range(3):
        picture(tmp_path / "photos" / f"{number}.png", number)
    (tmp_path / "photos" / "1.png").write_bytes(b"")
    code, _, err = pi("add", tmp_path / "photos", "--label", "cat")
    assert code == 2
    assert "1.png is empty" in err
    assert err.count("\n") == 1
    code, out, err = pi("add", tmp_path / "photos", "--label", "cat", "--skip-unreadable")
    assert code == 0
    assert out == "cat: 2 added, 0 there already, samples 1-2, 2 stored\n1 files skipped\n"
    assert err.count("skipped: ") == 1
    assert pi("predict", tmp_path / "photos", "--skip-unreadable")[1].count("\n") == 2
    code, _, err = pi("add", tmp_path / "photos" / "1.png", "--label", "cat", "--skip-unreadable")
    assert code == 2
    assert "none of the images can be read" in err


def test_the_limit_on_pixels(tmp_path: Path, pi: Any) -> None:
    photo = picture(tmp_path / "a.png")
    code, _, err = pi("add", photo, "--label", "cat", "--max-pixels", "15")
    assert code == 2
    assert "4 x 4 pixels: up to 15" in err
    assert pi("add", photo, "--label", "cat", "--max-pixels", "16")[0] == 0
    assert "is not from 1 to 89,478,485" in pi("add", photo, "--label", "cat", "--max-pixels", "0")[2]


def test_too_few_images_are_warned_of(tmp_path: Path, own_bundle: Path, pi: Any) -> None:
    toy.edit(own_bundle, lambda manifest: manifest["method"].update(least_images=2))
    code, out, err = pi("add", picture(tmp_path / "a.png", 1), "--label", "dog", bundle=own_bundle)
    assert code == 0
    assert "1 added" in out
    assert "warning: 1 images of dog are stored; fewer than 2 were too few for push" in err
    assert pi("add", picture(tmp_path / "b.png", 2), "--label", "dog", bundle=own_bundle)[2] == ""


def test_names_that_a_terminal_would_act_on_are_escaped(tmp_path: Path, pi: Any) -> None:
    picture(tmp_path / "a.png").rename(tmp_path / "a\x1b[31m.png")
    photo = picture(tmp_path / "b.png")
    os.rename(photo, os.fsencode(tmp_path) + b"/b\xff.png")  # noqa: PTH104  no UTF-8
    code, out, _ = pi(
        "predict", tmp_path / "a\x1b[31m.png", os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.png")
    )
    assert code == 0
    assert "a\\x1b[31m.png: " in out
    assert "b\\udcff.png: " in out
    assert "\x1b" not in out


def test_only_trusted_bundles(tmp_path: Path, pi: Any) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    keys = tmp_path / "keys"
    keys.write_text(Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex())
    keys.chmod(0o600)
    code, _, err = pi("check", "--trust", keys)
    assert code == 2
    assert "is not signed, and only signed ones are trusted" in err


def _many(folder: Path, count: int) -> Path:
    folder.mkdir()
    stream = io.BytesIO()
    Image.new("L", (64, 64)).save(stream, "BMP")
    content = bytearray(stream.getvalue())
    for number in range(count):
        content[-2:] = number.to_bytes(2, "big")
        (folder / f"{number:05d}.bmp").write_bytes(content)
    return folder


@pytest.mark.parametrize(("count", "at_once"), [(300, 32), pytest.param(10_000, 256, marks=pytest.mark.full)])
def test_memory_stays_flat_in_a_large_folder(
    tmp_path: Path, opened_bundle: Bundle, count: int, at_once: int
) -> None:
    """Decoded images (4 KiB each) are held `at_once` at a time: only the names grow with the folder."""
    import tracemalloc

    from pi_runtime.images import batched

    bundle = dataclasses.replace(opened_bundle, input_shape=(1, 64, 64))
    paths = [_many(tmp_path / "photos", count)]
    list(Reader([tmp_path / "photos" / "00000.bmp"], bundle))  # what Pillow loads once
    tracemalloc.start()
    try:
        sizes = [len(source.images) for source in batched(Reader(paths, bundle), at_once)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) == count
    assert max(sizes) == at_once
    assert peak < 3.2 * at_once * 64 * 64 + 1000 * count < 64 * 64 * count


def test_arrays_of_other_numbers_are_refused(runtime: Runtime) -> None:
    """NaN and wrong types come as arrays, too: one sentence, and nothing stored."""
    for array in (np.full((1, 4, 4, 1), np.nan, np.float32), np.zeros((1, 4, 4, 1), bool)):
        with pytest.raises(ClueError, match=r"images are (float32|bool) \[1, 4, 4, 1\]: they must be uint8"):
            runtime.add(array, "cat")  # type: ignore[arg-type]
    assert runtime.store.sample_ids(0) == []
