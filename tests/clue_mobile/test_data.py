"""Loading image data sets: layouts, pixels, splits, and what is said when a source is wrong."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clue_mobile import data
from clue_mobile.data import cache, files, pixels, splits
from clue_mobile.errors import ClueError

Image = pytest.importorskip("PIL.Image")

ROOT = Path(__file__).parents[2]
CIFAR = ROOT.parent / "shared" / "data" / "cifar10_images.zip"
RGB = (3, 2, 2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep decoded images out of the user's cache."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


def png(value: int | tuple[int, ...] = 0, size: tuple[int, int] = (2, 2), mode: str = "RGB") -> bytes:
    colour = (value,) * 3 if mode == "RGB" and isinstance(value, int) else value
    return encoded(Image.new(mode, size, colour))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(root: Path, contents: dict[str, bytes]) -> str:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(root)


def write_zip(path: Path, contents: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return str(path)


def firsts(split: data.Split) -> list[int]:
    """The first value of each image: the test images are told apart by it."""
    return split.images[:, 0, 0, 0].tolist()


TREE = {
    "train/dog/b.png": png(2),
    "train/dog/a.png": png(1),
    "train/cat/d.png": png(4),
    "train/cat/c.png": png(3),
    "test/cat/e.png": png(5),
    "test/dog/f.png": png(6),
}


def test_folder_is_ordered_by_class_and_name(tmp_path: Path) -> None:
    loaded = data.load(write_folder(tmp_path, TREE), input_shape=RGB)
    assert loaded.classes == ("cat", "dog")
    assert firsts(loaded.train) == [3, 4, 1, 2]
    assert loaded.train.labels.tolist() == [0, 0, 1, 1]
    assert firsts(loaded.test) == [5, 6]
    assert len(loaded.validation) == 0
    assert loaded.train.images.shape == (4, 2, 2, 3)
    assert loaded.source == str(tmp_path)


@pytest.mark.parametrize("prefix", ["", "set/", "a/b/c/"])
def test_zip_at_any_depth_equals_the_folder(tmp_path: Path, prefix: str) -> None:
    contents = {prefix + name: content for name, content in TREE.items()}
    contents |= {
        "__MACOSX/train/cat/c.png": b"",
        prefix + ".hidden/x.png": b"",
        prefix + "README.md": b"text",
    }
    loaded = data.load(write_zip(tmp_path / "x.zip", contents), input_shape=RGB)
    assert loaded.classes == ("cat", "dog")
    assert firsts(loaded.train) == [3, 4, 1, 2]
    assert firsts(loaded.test) == [5, 6]


def test_folder_without_splits_is_all_training(tmp_path: Path) -> None:
    source = write_folder(tmp_path, {f"{name}/{i}.png": png(i) for name in "ab" for i in range(3)})
    loaded = data.load(source, input_shape=RGB)
    assert len(loaded.train) == 6
    assert loaded.require("train") is loaded.train
    with pytest.raises(ClueError, match="has no test images"):
        loaded.require("test")


def test_single_class_folder_keeps_its_name(tmp_path: Path) -> None:
    loaded = data.load(write_zip(tmp_path / "x.zip", {"photos/cat/1.png": png(1)}), input_shape=RGB)
    assert loaded.classes == ("cat",)


def test_training_images_only(tmp_path: Path) -> None:
    source = write_folder(tmp_path, {"train/cat/1.png": png(1), "train/dog/1.png": png(2)})
    loaded = data.load(source, input_shape=RGB)
    assert loaded.classes == ("cat", "dog")
    assert (len(loaded.train), len(loaded.test)) == (2, 0)


def test_class_may_be_called_train(tmp_path: Path) -> None:
    source = write_folder(tmp_path, {"train/1.png": png(1), "car/1.png": png(2)})
    assert data.load(source, input_shape=RGB).classes == ("car", "train")


def test_images_may_lie_below_their_class_folder(tmp_path: Path) -> None:
    contents = {"train/a/images/1.png": png(1), "train/b/images/1.png": png(2), "val/a/1.png": png(3)}
    loaded = data.load(write_folder(tmp_path, contents | {"val/b/1.png": png(4)}), input_shape=RGB)
    assert loaded.classes == ("a", "b")
    assert firsts(loaded.validation) == [3, 4]


def test_links_are_followed_unless_in_a_circle(tmp_path: Path) -> None:
    source = write_folder(tmp_path, {"cat/1.png": png(1), "dog/1.png": png(2)})
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "wolf").symlink_to(tmp_path / "dog")
    assert firsts(data.load(source, input_shape=RGB).train) == [1, 2, 2]


def test_validation_is_the_last_of_each_class(tmp_path: Path) -> None:
    source = write_folder(tmp_path, {f"{name}/{i:02}.png": png(i) for name in "ab" for i in range(20)})
    tenth = data.load(source, input_shape=RGB)
    assert firsts(tenth.validation) == [18, 19, 18, 19]
    assert tenth.validation.labels.tolist() == [0, 0, 1, 1]
    assert firsts(tenth.train) == [*range(18), *range(18)]
    assert firsts(data.load(source, input_shape=RGB, validation_per_class=1).validation) == [19, 19]
    assert len(data.load(source, input_shape=RGB, validation_per_class=0).validation) == 0
    for count, message in ((20, "leaves none"), (-1, "0 or more")):
        with pytest.raises(ClueError, match=message):
            data.load(source, input_shape=RGB, validation_per_class=count)


def test_classes_of_a_model_set_the_order(tmp_path: Path) -> None:
    loaded = data.load(write_folder(tmp_path, TREE), input_shape=RGB, classes=("dog", "cat"))
    assert loaded.classes == ("dog", "cat")
    assert loaded.train.labels.tolist() == [1, 1, 0, 0]


def test_classes_that_do_not_match_are_listed_with_the_closest(tmp_path: Path) -> None:
    source = write_folder(tmp_path, TREE)
    with pytest.raises(ClueError) as caught:
        data.load(source, input_shape=RGB, classes=("cats", "dog", "bird"))
    message = str(caught.value)
    assert "only in the data: 'cat' (close to 'cats')" in message
    assert "only in the class list: 'cats' (close to 'cat'), 'bird'" in message
    with pytest.raises(ClueError, match="names a class twice: 'cat'"):
        data.load(source, input_shape=RGB, classes=("cat", "cat", "dog"))
    with pytest.raises(ClueError, match="and 90 more"):
        data.load(source, input_shape=RGB, classes=tuple(f"class {i}" for i in range(100)))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"train/cat/1.txt": b""}, "no images in"),
        ({"test/cat/1.png": png(), "test/dog/1.png": png()}, "has test but no train/CLASS"),
        (
            {"cat/1.png": png(), "dog/1.png": png(), "stray.png": png()},
            "stray.png .* lies in no class folder",
        ),
        ({"1.png": png()}, "1.png .* lies in no class folder"),
        ({"p/cat/1.png": png(), "p/dog/1.png": png(), "p/x.png": png()}, "p/x.png .* in no class folder"),
        (TREE | {"extra/cat/1.png": png()}, "'extra' beside train/"),
        ({k: v for k, v in TREE.items() if k != "test/dog/f.png"}, "no test images for 'dog'"),
        (TREE | {"test/bird/1.png": png()}, "no train images for 'bird'|no test images|'bird'"),
        (TREE | {"train/cat/broken.png": b"no image"}, "broken.png.* is no image that can be read"),
        (
            TREE | {"train/cat/short.png": png(size=(64, 64))[:60]},
            "cannot read the image train/cat/short.png",
        ),
    ],
)
def test_wrong_folders_are_named(tmp_path: Path, contents: dict[str, bytes], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        data.load(write_folder(tmp_path / "set", contents), input_shape=RGB)
    with pytest.raises(ClueError, match=message):
        data.load(write_zip(tmp_path / "set.zip", contents), input_shape=RGB)


def test_empty_class_folder_is_named(tmp_path: Path) -> None:
    source = write_folder(tmp_path, TREE)
    (tmp_path / "train" / "bird").mkdir()
    with pytest.raises(ClueError, match=r"class folder train/bird .* has no images"):
        data.load(source, input_shape=RGB)


def test_broken_link_is_named(tmp_path: Path) -> None:
    source = write_folder(tmp_path, TREE)
    (tmp_path / "train" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ClueError, match=r"gone.png"):
        data.load(source, input_shape=RGB)


@pytest.mark.parametrize("name", ["../cat/1.png", "/cat/1.png", "cat/../dog/1.png", "c:\\cat\\1.png"])
def test_zip_with_paths_that_leave_it_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClueError, match="not a plain path"):
        data.load(write_zip(tmp_path / "x.zip", TREE | {name: png()}), input_shape=RGB)


def test_damaged_and_encrypted_zips(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    (tmp_path / "none.zip").write_bytes(b"no archive")
    with pytest.raises(ClueError, match="cannot read the archive"):
        data.load(str(tmp_path / "none.zip"), input_shape=RGB)
    write_zip(path, {"cat/1.png": png(77), "dog/1.png": png(78)})
    good = path.read_bytes()
    path.write_bytes(good.replace(b"IDAT", b"IDAX", 1))
    with pytest.raises(ClueError, match=r"cat/1.png .*CRC"):
        data.load(str(path), input_shape=RGB)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.png", bytes(1000))
    deflated = path.read_bytes()
    path.write_bytes(deflated.replace(deflated[39:43], b"\xff\xff\xff\xff", 1))
    with pytest.raises(ClueError, match=r"cannot read cat/1\.png"):
        data.load(str(path), input_shape=RGB)
    locked = bytearray(good)
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        locked[good.index(signature) + offset] |= 1
    path.write_bytes(locked)
    with pytest.raises(ClueError, match=r"cat/1.png .*password"):
        data.load(str(path), input_shape=RGB)


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    good = png()
    bomb = good[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + good[33:]
    with pytest.raises(ClueError, match=r"cat/bomb.png"):
        data.load(write_folder(tmp_path / "1", {"cat/bomb.png": bomb}), input_shape=RGB)
    source = write_folder(tmp_path / "2", {"cat/wide.png": png(size=(100, 100))})
    monkeypatch.setattr(pixels, "MAX_PIXELS", 9_999)
    with pytest.raises(ClueError, match=r"cat/wide.png.* has 100 x 100 pixels: up to 9,999 and"):
        data.load(source, input_shape=RGB)
    monkeypatch.setattr(pixels, "MAX_FILE_BYTES", 10)
    with pytest.raises(ClueError, match="10 are allowed"):
        data.load(source, input_shape=RGB)


def test_large_files_are_decoded_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SMALL_FILE_BYTES", 0)
    monkeypatch.setattr(files, "CHUNK", 3)
    source = write_folder(tmp_path, {f"{name}/{i:02}.png": png(i) for name in "ab" for i in range(20)})
    seen: list[tuple[int, int]] = []
    loaded = data.load(
        source,
        input_shape=RGB,
        validation_per_class=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert firsts(loaded.train) == [*range(20), *range(20)]
    assert seen == sorted(seen)
    assert seen[-1] == (40, 40)


def test_cache_spares_decoding_and_follows_the_archive(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MIN_IMAGES", 1)
    source = write_zip(tmp_path / "x.zip", TREE)
    decoded: list[int] = []

    def load() -> data.Dataset:
        return data.load(source, input_shape=RGB, progress=lambda done, _: decoded.append(done))

    first = load()
    assert decoded == [6]
    assert np.array_equal(load().train.images, first.train.images)
    assert decoded == [6]
    (kept,) = own_cache.rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:100])
    assert np.array_equal(load().train.images, first.train.images)
    assert decoded == [6, 6]
    write_zip(tmp_path / "x.zip", TREE | {"train/dog/a.png": png(99)})
    assert firsts(load().train) == [3, 4, 99, 2]


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MIN_IMAGES", 1)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(data.load(write_zip(tmp_path / "x.zip", TREE), input_shape=RGB).train) == 4


def decode(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    return pixels.decode(content, "it", shape)


def test_size_that_fits_is_left_alone() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode(encoded(Image.fromarray(noise)), (3, 5, 7)), noise)


def test_other_sizes_are_stretched_and_averaged() -> None:
    halves = np.zeros((4, 16, 3), dtype=np.uint8)
    halves[:, 8:] = 200
    stretched = decode(encoded(Image.fromarray(halves)), (3, 8, 4))
    assert stretched.shape == (8, 4, 3)
    assert (stretched[:, 0] == 0).all()
    assert (stretched[:, 3] == 200).all()
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(decode(encoded(Image.fromarray(board)), (1, 4, 4)).astype(int) - 127).max() <= 2


def test_channels_are_converted_as_the_model_demands() -> None:
    grey = decode(png(90, mode="L"), (3, 2, 2))
    assert grey.shape == (2, 2, 3)
    assert (grey == 90).all()
    luma = decode(png((255, 0, 0)), (1, 2, 2))
    assert luma.shape == (2, 2, 1)
    assert (luma == 76).all()  # 0.299 * 255
    assert (decode(encoded(Image.new("CMYK", (2, 2), (0, 0, 0, 255)), "TIFF"), RGB) == 0).all()


def test_orientation_is_applied() -> None:
    picture = Image.new("RGB", (2, 1))
    picture.putpixel((1, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right
    turned = decode(encoded(picture, exif=exif), (3, 2, 1))
    assert turned[:, 0, 0].tolist() == [0, 255]


def test_transparency_is_black() -> None:
    assert (decode(png((200, 100, 50, 0), mode="RGBA"), RGB) == 0).all()
    assert decode(png((200, 100, 50, 128), mode="RGBA"), RGB)[0, 0].tolist() == [100, 50, 25]
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([255, 255, 255] * 256)
    assert (decode(encoded(palette, transparency=0), RGB) == 0).all()
    assert (decode(encoded(palette), RGB) == 255).all()


@pytest.mark.parametrize(("mode", "kind"), [("F", "TIFF"), ("I", "TIFF")])
def test_deep_pixels_are_refused(mode: str, kind: str) -> None:
    with pytest.raises(ClueError, match=r"it has pixels of another kind \([FI]\)"):
        decode(encoded(Image.new(mode, (2, 2)), kind), RGB)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 3))
def test_held_out_images_are_the_last_and_none_is_lost(labels: list[int], per_class: int) -> None:
    numbers = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    split = data.Split(numbers, np.array(labels, dtype=np.int64))
    present = sorted(set(labels))
    assume(min(labels.count(label) for label in present) > per_class)
    remap = data.Split(numbers, np.searchsorted(present, split.labels).astype(np.int64))
    names = [str(label) for label in present]
    held = splits.assemble("s", names, {"train": remap}, classes=None, validation_per_class=per_class)
    for label in range(len(present)):
        every = firsts(remap.of_class(label))
        assert firsts(held.train.of_class(label)) + firsts(held.validation.of_class(label)) == every
        assert len(held.validation.of_class(label)) == per_class


def test_split_selects_by_class_and_count() -> None:
    split = data.Split(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.array([0, 1, 0, 2]))
    assert firsts(split.of_class(0)) == [0, 2]
    assert firsts(split.without_class(0)) == [1, 3]
    assert firsts(split.take(2)) == [0, 1]
    assert len(split.take(9)) == 4
    with pytest.raises(ClueError, match="uint8"):
        data.Split(split.images.astype(np.float32), split.labels)
    with pytest.raises(ClueError, match="int64"):
        data.Split(split.images, split.labels[:3])


def write_npz(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


X = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
Y = np.array([0, 1, 0, 1])


def test_npz_with_and_without_splits(tmp_path: Path) -> None:
    source = write_npz(
        tmp_path / "a.npz",
        x_train=X,
        y_train=Y[:, None],
        x_test=X[:2],
        y_test=Y[:2],
        x_validation=X[2:],
        y_validation=Y[2:].astype(np.uint8),
        classes=["no", "yes"],
    )
    loaded = data.load(source, input_shape=(1, 2, 2), validation_per_class=1)
    assert loaded.classes == ("no", "yes")
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [4, 2, 2]
    assert np.array_equal(loaded.train.images[..., 0], X)
    assert data.load(source, input_shape=(1, 2, 2), classes=("yes", "no")).train.labels.tolist() == [
        1,
        0,
        1,
        0,
    ]
    plain = write_npz(tmp_path / "b.npz", x=X, y=Y)
    assert data.load(plain, input_shape=(3, 4, 4)).train.images.shape == (4, 4, 4, 3)
    assert data.load(plain, input_shape=(1, 2, 2)).classes == ("0", "1")
    assert data.load(plain, input_shape=(1, 2, 2), classes=("a", "b")).classes == ("a", "b")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "has no array y"),
        ({"z": X}, "has the arrays z; x_train and y_train"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "has no array y_test"),
        ({"x": X.astype(float), "y": Y}, "x is float64"),
        ({"x": X.reshape(4, 1, 1, 4), "y": Y}, r"x is uint8 \[4, 1, 1, 4\]"),
        ({"x": X, "y": Y.astype(float)}, "y is float64"),
        ({"x": X, "y": Y[:3]}, "4 images but y has 3 labels"),
        ({"x": X, "y": Y - 1}, "label is -1"),
        ({"x": X, "y": Y, "classes": ["one"]}, "label is 1, outside 0..0"),
        ({"x": X, "y": Y * 2}, "no train images for '1'"),
        ({"x": X, "y": Y, "classes": np.array([1, 2])}, "classes is int64"),
        ({"x": X[:0], "y": Y[:0]}, "has no training images"),
        ({"x": np.array([None]), "y": Y}, "cannot read the arrays"),
    ],
)
def test_wrong_npz_arrays_are_named(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        data.load(write_npz(tmp_path / "x.npz", **arrays), input_shape=(1, 2, 2))


def test_npz_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(ClueError, match="cannot read the arrays"):
        data.load(str(tmp_path / "x.npz"), input_shape=(1, 2, 2))


def test_digits() -> None:
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    loaded = data.load("digits", input_shape=(1, 8, 8))
    assert loaded.classes == tuple("0123456789")
    every = (loaded.train, loaded.validation, loaded.test)
    assert [len(split) for split in every] == [1087, 355, 355]
    for split in every:
        shares = np.bincount(split.labels) / np.bincount(loaded.train.labels)
        assert np.ptp(shares) < 0.02
    # Between them the splits hold each digit once, and its sixteenths became 255ths.
    original = np.rint(sklearn_datasets.load_digits().images * 255 / 16).astype(np.uint8)
    together = np.concatenate([split.images[..., 0] for split in every])
    assert sorted(map(bytes, together)) == sorted(map(bytes, original))
    again = data.load("digits", input_shape=(1, 8, 8))
    assert np.array_equal(again.test.images, loaded.test.images)
    assert data.load("digits", input_shape=(3, 16, 16)).train.images.shape == (1087, 16, 16, 3)


def test_torchvision_reads_what_is_there_and_says_where_it_looked(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(ClueError, match=f"no MNIST files in '{tmp_path}'"):
        data.load(f"torchvision:MNIST:{tmp_path}", input_shape=(1, 28, 28))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 30), ("t10k", 10)):
        images = np.full((count, 28, 28), np.arange(count)[:, None, None], dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes()
        )
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    loaded = data.load(f"torchvision:MNIST:{tmp_path}", input_shape=(1, 28, 28), validation_per_class=1)
    assert loaded.classes[3] == "3 - three"
    assert firsts(loaded.train) == list(range(20))
    assert firsts(loaded.validation) == list(range(20, 30))
    assert firsts(loaded.test) == list(range(10))
    with pytest.raises(ClueError, match="did you mean 'CIFAR10'"):
        data.load("torchvision:CIFAR-10", input_shape=(3, 32, 32))


@pytest.mark.parametrize(
    ("package", "source"), [("sklearn.datasets", "digits"), ("torchvision", "torchvision:X")]
)
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, package: str, source: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ClueError, match=r"clue-mobile\[export\]"):
        data.load(source, input_shape=(1, 8, 8))


def test_importing_is_light() -> None:
    heavy = {"torch", "torchvision", "sklearn", "matplotlib", "PIL", "rich"}
    packages = "clue_mobile.data, clue_mobile.evaluate, clue_mobile.report"
    code = f"import sys, {packages}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("source", "shape", "message"),
    [
        ("nowhere", (3, 2, 2), "no data source 'nowhere'"),
        (__file__, (3, 2, 2), "neither a folder nor"),
        ("digits", (2, 8, 8), "1 or 3 channels"),
        ("digits", (1, 0, 8), "positive sides"),
    ],
)
def test_wrong_sources(source: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        data.load(source, input_shape=shape)


@pytest.mark.skipif(not CIFAR.exists(), reason="needs ../shared/data/cifar10_images.zip")
def test_cifar_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(CIFAR) as archive, zipfile.ZipFile(tmp_path / "small.zip", "w") as small:
        for info in archive.infolist():
            if info.filename.endswith(("00.jpg", "01.jpg")):
                small.writestr(info.filename, archive.read(info))
    loaded = data.load(str(tmp_path / "small.zip"), input_shape=(3, 32, 32))
    assert loaded.classes[:3] == ("airplane", "automobile", "bird")
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [900, 100, 200]
    assert 100 < loaded.train.images.mean() < 140


@pytest.mark.full
@pytest.mark.skipif(not CIFAR.exists(), reason="needs ../shared/data/cifar10_images.zip")
def test_whole_cifar_zip() -> None:
    loaded = data.load(str(CIFAR), input_shape=(3, 32, 32), validation_per_class=500)
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [45_000, 5_000, 10_000]
    assert set(np.bincount(loaded.train.labels)) == {4500}
