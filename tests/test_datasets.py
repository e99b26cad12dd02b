"""The data sets: what is read is what is on disk, the draw is balanced, and every fault is told with its remedy."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import pickle
import stat
import struct
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from implicitreg import datasets
from implicitreg.datasets import DataError, load
from PIL import Image
from scipy.io import savemat

DATA = os.environ.get("IMPLICITREG_DATA")
UNROUTABLE = "http://127.0.0.1:9/"  # the discard port: nobody listens


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, and no way out of this machine."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("IMPLICITREG_DATA", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, official in datasets._OFFICIAL.items():
        monkeypatch.setitem(datasets._OFFICIAL, name, replace(official, url=UNROUTABLE))
    return folder


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def digits_like(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 5, 4), dtype=np.uint8), rng.permutation(np.arange(n, dtype=np.uint8) % 10)


def bless(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes], **changes: object) -> None:
    """Let the checksums of `files` stand for the official ones."""
    md5 = {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
    official = datasets._OFFICIAL[name]
    monkeypatch.setitem(datasets._OFFICIAL, name, replace(official, md5=official.md5 | md5, **changes))


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def mnist_files(part: str, images: np.ndarray, labels: np.ndarray, packed: bool = True) -> dict[str, bytes]:
    files = {f"{part}-images-idx3-ubyte": idx(images), f"{part}-labels-idx1-ubyte": idx(labels)}
    return {f"{k}.gz": gzip.compress(v, mtime=0) for k, v in files.items()} if packed else files


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# Digits and the result


def test_digits_are_the_1797_images_of_scikit_learn_over_16():
    from sklearn.datasets import load_digits

    ours, theirs = load(), load_digits()
    assert ours.images.shape == (1797, 1, 8, 8)
    assert ours.images.dtype == np.float32
    assert ours.labels.dtype == np.int64
    assert ours.classes == tuple("0123456789")
    assert ours.split == "all"
    np.testing.assert_array_equal(16 * ours.images[:, 0], theirs.images)
    np.testing.assert_array_equal(ours.labels, theirs.target)


def test_digits_split_takes_every_fifth_image_of_each_class():
    whole, train, test = (load("digits", split=split) for split in ("all", "train", "test"))
    seen: dict[int, int] = {}
    expected = []
    for i, label in enumerate(whole.labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] % 5 == 0:
            expected.append(i)
    np.testing.assert_array_equal(test.images, whole.images[expected])
    np.testing.assert_array_equal(train.images, np.delete(whole.images, expected, axis=0))
    np.testing.assert_array_equal(train.labels, np.delete(whole.labels, expected))
    assert (len(train.labels), len(test.labels)) == (1442, 355)


@pytest.mark.parametrize("name", ["digits", "npz:a.npz"])
def test_uint8_and_float32_agree_to_half_a_grey_level(name, cache):
    np.savez(cache / "a.npz", images=np.linspace(0, 1, 60).reshape(5, 3, 4), labels=np.arange(5))
    levels, floats = load(name, dtype="uint8").images, load(name).images
    assert levels.dtype == np.uint8
    assert (levels.min(), levels.max(), floats.min(), floats.max()) == (0, 255, 0, 1)
    assert np.abs(levels / 255 - floats).max() <= 0.5 / 255 + 1e-7  # float32 round-off


def test_every_grey_level_becomes_its_255th(cache):
    np.savez(cache / "a.npz", images=np.arange(256, dtype=np.uint8).reshape(1, 16, 16), labels=[0])
    np.testing.assert_array_equal(load("npz:a.npz").images.ravel(), [np.float32(i / 255) for i in range(256)])
    np.testing.assert_array_equal(load("npz:a.npz", dtype="uint8").images.ravel(), range(256))


def test_the_result_is_frozen_and_its_arrays_are_the_callers_own():
    result = load(limit=3)
    with pytest.raises(FrozenInstanceError):
        result.split = "train"
    result.images[:] = 0
    assert load(limit=3).images.any()
    assert result.images.flags.c_contiguous


# The draw


@pytest.mark.parametrize("limit", [1, 7, 10, 95, 1000])
def test_limit_draws_classes_that_differ_by_at_most_one(limit):
    draw = load("digits", limit=limit)
    counts = np.bincount(draw.labels, minlength=10)
    assert counts.sum() == limit == len(draw.images)
    assert np.ptp(counts) <= 1


def test_a_plain_prefix_of_the_source_is_not_balanced():
    assert np.ptp(np.bincount(load("digits").labels[:95])) > 1


def test_a_class_that_runs_out_is_taken_whole_and_the_others_fill_in(cache):
    labels = np.repeat([0, 1, 2], [2, 50, 50])
    np.savez(cache / "a.npz", images=np.arange(102, dtype=np.uint8)[:, None, None], labels=labels)
    draw = load("npz:a.npz", limit=31, dtype="uint8")
    assert sorted(np.bincount(draw.labels)) == [2, 14, 15]
    np.testing.assert_array_equal(draw.labels, labels[draw.images.ravel()])
    assert len(set(draw.images.ravel().tolist())) == 31


def test_a_limit_above_the_size_gives_every_image_once(cache):
    np.savez(cache / "a.npz", images=np.arange(20, dtype=np.uint8)[:, None, None], labels=np.arange(20) % 2)
    assert sorted(load("npz:a.npz", limit=99, dtype="uint8").images.ravel()) == list(range(20))


def test_a_smaller_draw_is_the_beginning_of_a_larger_one():
    small, large = load("digits", limit=37), load("digits", limit=120)
    np.testing.assert_array_equal(small.images, large.images[:37])
    np.testing.assert_array_equal(small.labels, large.labels[:37])


def test_the_seed_alone_decides_the_draw():
    first, again, other = (load("digits", limit=40, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


def test_each_image_is_drawn_equally_often(cache):
    np.savez(cache / "a.npz", images=np.arange(8, dtype=np.uint8)[:, None, None], labels=np.repeat([0, 1], [3, 5]))
    seeds = 2000
    draws = [load("npz:a.npz", limit=2, dtype="uint8", seed=seed).images.ravel() for seed in range(seeds)]
    frequency = np.bincount(np.concatenate(draws), minlength=8) / seeds
    p = np.repeat([1 / 3, 1 / 5], [3, 5])
    assert (np.abs(frequency - p) <= 4 * np.sqrt(p * (1 - p) / seeds)).all()


# Official files


@pytest.mark.parametrize("packed", [True, False], ids=["gzipped", "unpacked"])
@pytest.mark.parametrize("place", ["mnist", "."], ids=["subfolder", "cache folder"])
def test_idx_files_round_trip(packed, place, cache, monkeypatch):
    images, labels = digits_like(23)
    files = mnist_files("t10k", images, labels, packed)
    bless(monkeypatch, "mnist", files)
    put(cache / place, files)
    result = load("mnist", split="test", dtype="uint8")
    np.testing.assert_array_equal(result.images[:, 0], images)
    np.testing.assert_array_equal(result.labels, labels)
    assert result.source == f"MNIST, official files {', '.join(sorted(files))} (MD5 verified)"


def test_all_is_train_then_test(cache, monkeypatch):
    (train, y), (test, z) = digits_like(23), digits_like(11, seed=1)
    files = mnist_files("train", train, y) | mnist_files("t10k", test, z)
    bless(monkeypatch, "mnist", files)
    put(cache, files)
    whole = load("mnist", dtype="uint8")
    np.testing.assert_array_equal(whole.images[:, 0], np.concatenate([train, test]))
    np.testing.assert_array_equal(whole.labels, np.concatenate([y, z]))
    np.testing.assert_array_equal(load("mnist", split="train", dtype="uint8").images, whole.images[:23])


def test_one_split_alone_loads_and_the_other_is_asked_for_by_name(cache, monkeypatch):
    files = mnist_files("t10k", *digits_like(23))
    bless(monkeypatch, "mnist", files)
    put(cache / "mnist", files)
    assert load("mnist", split="test").images.shape == (23, 1, 5, 4)
    for split in ("train", "all"):
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz.*Present without a download: split='test'"):
            load("mnist", split=split)
    assert contents(cache) == ["mnist", *(f"mnist/{file}" for file in sorted(files))]


def test_fashion_files_beside_are_not_taken_for_mnist(cache, monkeypatch):
    files = mnist_files("t10k", *digits_like(23))
    bless(monkeypatch, "fashion_mnist", files)
    put(cache, files)
    assert load("fashion_mnist", split="test").classes[9] == "Ankle boot"
    with pytest.raises(DataError, match="could not be downloaded"):
        load("mnist", split="test")


def test_cifar_records_are_label_then_colour_planes(cache, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, (6, 4), dtype=np.uint8)
    batches = [f"cifar-10-batches-bin/{name}.bin" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")]
    members = {
        batch: b"".join(bytes([label]) + image.tobytes() for label, image in zip(y, x, strict=True))
        for batch, x, y in zip(batches, images, labels, strict=True)
    }
    # written last batch first: the order inside the archive must not matter
    files = {"cifar-10-binary.tar.gz": tar_bytes(dict(reversed(members.items())), "gz")}
    bless(monkeypatch, "cifar10", files)
    put(cache, files)
    train, test = (load("cifar10", split=split, dtype="uint8") for split in ("train", "test"))
    np.testing.assert_array_equal(train.images, images[:5].reshape(20, 3, 32, 32))
    np.testing.assert_array_equal(train.labels, labels[:5].ravel())
    np.testing.assert_array_equal(test.images, images[5])
    np.testing.assert_array_equal(test.labels, labels[5])
    assert load("cifar10").source == "CIFAR-10, official files cifar-10-binary.tar.gz (MD5 verified)"


def test_svhn_calls_its_tens_zero_and_is_transposed(cache, monkeypatch):
    X = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 7), dtype=np.uint8)
    y = np.array([10, 1, 2, 9, 10, 5, 3], dtype=np.uint8)[:, None]
    stream = io.BytesIO()
    savemat(stream, {"X": X, "y": y})
    files = {"test_32x32.mat": stream.getvalue()}
    bless(monkeypatch, "svhn", files)
    put(cache / "svhn", files)
    result = load("svhn", split="test", dtype="uint8")
    assert result.images.shape == (7, 3, 32, 32)
    for i in range(7):
        np.testing.assert_array_equal(result.images[i].transpose(1, 2, 0), X[..., i])
    np.testing.assert_array_equal(result.labels, [0, 1, 2, 9, 0, 5, 3])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b"\x00\x00\x0d" + b[3:], "begins with 00 00 0d 03"),
        (lambda b: b[:-1], "header says"),
        (lambda b: b + b"\x00", "header says"),
        (lambda b: b[:9], "unpack"),
        (lambda b: b"", "begins with"),
        (lambda b: idx(np.zeros((3, 5, 4), np.uint8)), "3 images and 23 labels"),
        (lambda b: idx(np.zeros((0, 5, 4), np.uint8)), "0 images"),
    ],
    ids=["magic", "short", "long", "no header", "empty file", "fewer images than labels", "no images"],
)
def test_damaged_idx_files_are_named(damage, message, cache, monkeypatch):
    images, labels = digits_like(23)
    files = mnist_files("t10k", images, labels, packed=False)
    files["t10k-images-idx3-ubyte"] = damage(files["t10k-images-idx3-ubyte"])
    bless(monkeypatch, "mnist", files)
    put(cache, files)
    with pytest.raises(DataError, match=f"t10k-images-idx3-ubyte cannot be read.*{message}"):
        load("mnist", split="test")


def test_labels_beyond_the_classes_are_refused(cache, monkeypatch):
    files = mnist_files("t10k", digits_like(3)[0], np.array([1, 2, 10], np.uint8))
    bless(monkeypatch, "mnist", files)
    put(cache, files)
    with pytest.raises(DataError, match="label 10 of 10 classes"):
        load("mnist", split="test")


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"no gzip" + b, lambda b: b[:20] + bytes(8) + b[28:]],
    ids=["truncated", "no gzip", "overwritten"],
)  # fmt: skip
def test_a_bad_gzip_is_named(damage, cache, monkeypatch):
    files = mnist_files("t10k", *digits_like(23))
    files["t10k-images-idx3-ubyte.gz"] = damage(files["t10k-images-idx3-ubyte.gz"])
    bless(monkeypatch, "mnist", files)
    put(cache, files)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        load("mnist", split="test")


@pytest.mark.parametrize(
    ("name", "file"), [("cifar10", "cifar-10-binary.tar.gz"), ("svhn", "test_32x32.mat")], ids=["cifar10", "svhn"]
)
def test_other_official_files_that_cannot_be_parsed_are_named(name, file, cache, monkeypatch):
    bless(monkeypatch, name, {file: b"not what it should be"})
    put(cache, {file: b"not what it should be"})
    with pytest.raises(DataError, match=f"{file} cannot be read.*download it again from {UNROUTABLE}"):
        load(name, split="test")


@pytest.mark.parametrize("place", ["mnist", "."], ids=["subfolder", "cache folder"])
def test_a_wrong_checksum_names_file_and_address_and_leaves_the_file(place, cache):
    put(cache / place, mnist_files("t10k", *digits_like(23)))
    before = contents(cache)
    with pytest.raises(DataError, match=rf"t10k-images-idx3-ubyte\.gz has the MD5 .*Delete it, download {UNROUTABLE}"):
        load("mnist", split="test")
    assert contents(cache) == before


def real(file: str) -> Path:
    if DATA is None:
        pytest.skip("IMPLICITREG_DATA is not set")
    for path in (Path(DATA) / file, Path(DATA) / Path(file).name):
        if path.is_file():
            return path
    pytest.skip(f"IMPLICITREG_DATA holds no {file}")


def test_the_official_mnist_test_files(monkeypatch):
    for file in datasets._OFFICIAL["mnist"].files["test"]:
        real(f"mnist/{file}")
    monkeypatch.setenv("IMPLICITREG_DATA", DATA)
    mnist = load("mnist", split="test")
    assert mnist.images.shape == (10000, 1, 28, 28)
    # the counts of the classes in the test set, as published
    assert np.bincount(mnist.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert (mnist.images.min(), mnist.images.max()) == (0, 1)


def test_the_unpacked_checksums_belong_to_the_packed_files():
    md5 = datasets._OFFICIAL["mnist"].md5
    for file in datasets._OFFICIAL["mnist"].files["test"]:
        unpacked = gzip.decompress(real(f"mnist/{file}").read_bytes())
        assert hashlib.md5(unpacked).hexdigest() == md5[file.removesuffix(".gz")]


# Downloads


@contextlib.contextmanager
def serving(respond: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def body(content: bytes, promised: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(promised or len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return respond


def refuse(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(404)


def test_a_download_is_verified_kept_silent_and_used_again(cache, monkeypatch, capfd):
    images, labels = digits_like(23)
    files = mnist_files("t10k", images, labels)
    asked = []
    log = io.StringIO()
    for handler in pooch.get_logger().handlers:  # pooch logs to the stderr of its import, which capfd does not see
        monkeypatch.setattr(handler, "stream", log)

    def respond(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        body(files[handler.path[1:]])(handler)

    with serving(respond) as url:
        bless(monkeypatch, "mnist", files, url=url)
        first = load("mnist", split="test", dtype="uint8")
        again = load("mnist", split="test", dtype="uint8")
    np.testing.assert_array_equal(first.images[:, 0], images)
    np.testing.assert_array_equal(again.labels, labels)
    assert sorted(asked) == sorted(f"/{file}" for file in files)
    assert contents(cache) == ["mnist", *(f"mnist/{file}" for file in sorted(files))]
    assert capfd.readouterr() == ("", "")
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (body(b"wrong bytes"), "hash"),
        (body(b"the beginning", promised=10_000), "IncompleteRead"),
        (refuse, "404"),
    ],
    ids=["wrong bytes", "dies mid-transfer", "not found"],
)
def test_a_failed_download_leaves_nothing_in_the_cache(respond, reason, cache, monkeypatch, capfd):
    with serving(respond) as url:
        monkeypatch.setitem(datasets._OFFICIAL, "svhn", replace(datasets._OFFICIAL["svhn"], url=url))
        with pytest.raises(DataError, match=rf"svhn needs test_32x32\.mat.*{reason}.*Download {url}test_32x32\.mat"):
            load("svhn", split="test")
    assert contents(cache) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "svhn"])
def test_offline_names_file_address_folder_and_variable(name, cache):
    file = datasets._OFFICIAL[name].files["train"][0]
    with pytest.raises(DataError) as caught:
        load(name)
    for part in (file, f"{UNROUTABLE}{file}", str(cache / name), "IMPLICITREG_DATA", "ConnectionError"):
        assert part in str(caught.value)
    assert contents(cache) == []


def test_a_cache_folder_that_was_not_there_is_not_left_behind(cache, monkeypatch):
    monkeypatch.setenv("IMPLICITREG_DATA", str(cache / "new"))
    with pytest.raises(DataError):
        load("cifar10")
    assert contents(cache) == []


def test_the_default_cache_is_the_users_own(monkeypatch):
    monkeypatch.setenv("IMPLICITREG_DATA", "")
    assert datasets._cache().name == "implicitreg"


# Folders and archives


def png(value: int, size: tuple[int, int] = (4, 6), mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(value).integers(0, 256, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, format="PNG", **options)
    return stream.getvalue()


def tar_bytes(files: dict[str, bytes], compression: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


TREE = {
    f"{split}/{label}/{i}.png": png(100 * a + 10 * b + i)
    for a, split in enumerate(["test", "train"])
    for b, label in enumerate(["dog", "cat"])
    for i in range(4 - b)
}
NOISE = {
    "README.txt": b"read me",
    ".hidden/cat/1.png": b"hidden",
    "train/cat/.DS_Store": b"x",
    "train/cat/._0.png": b"x",
    "train/cat/notes.md": b"x",
    "__MACOSX/train/cat/0.png": b"x",
}
FORMS = {
    "folder:tree": lambda cache, files: put(cache / "tree", files),
    "archive:a.tar": lambda cache, files: put(cache, {"a.tar": tar_bytes(files)}),
    "archive:a.tar.gz": lambda cache, files: put(cache, {"a.tar.gz": tar_bytes(files, "gz")}),
    "archive:a.tar.xz": lambda cache, files: put(cache, {"a.tar.xz": tar_bytes(files, "xz")}),
    "archive:a.zip": lambda cache, files: put(cache, {"a.zip": zip_bytes(files)}),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
def test_trees_give_sorted_images_whatever_their_form_and_order(name, backwards, cache):
    files = TREE | NOISE
    FORMS[name](cache, dict(reversed(files.items())) if backwards else files)
    result = load(name, dtype="uint8")
    expected = [f"{s}/{c}/{i}.png" for s in ("train", "test") for c, n in (("cat", 3), ("dog", 4)) for i in range(n)]
    assert result.classes == ("cat", "dog")
    assert result.labels.tolist() == ([0] * 3 + [1] * 4) * 2
    assert result.images.shape == (14, 3, 4, 6)
    for image, file in zip(result.images, expected, strict=True):
        np.testing.assert_array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(TREE[file]))))


@pytest.mark.parametrize("name", FORMS)
def test_a_draw_is_the_same_in_every_form_and_reads_only_what_it_needs(name, cache):
    FORMS["archive:a.zip"](cache, TREE)
    expected = load("archive:a.zip", split="train", limit=4)
    decoded = []
    FORMS[name](cache, TREE)
    with pytest.MonkeyPatch.context() as patch:
        original = datasets._pixels
        patch.setattr(datasets, "_pixels", lambda *args: decoded.append(args[1]) or original(*args))
        draw = load(name, split="train", limit=4)
    np.testing.assert_array_equal(draw.images, expected.images)
    np.testing.assert_array_equal(draw.labels, expected.labels)
    assert len(decoded) == 4
    assert np.bincount(draw.labels).tolist() == [2, 2]


@pytest.mark.parametrize("top", ["", "pictures/", "./", "a/b/"], ids=["bare", "one above", "dot", "two above"])
@pytest.mark.parametrize("name", FORMS)
def test_a_tree_may_lie_below_other_folders(name, top, cache):
    FORMS[name](cache, {top + file: content for file, content in TREE.items()})
    assert load(name, split="test").images.shape == (7, 3, 4, 6)


def test_without_train_and_test_everything_is_one_split(cache):
    put(cache / "tree", {file.removeprefix("train/"): TREE[file] for file in TREE if file.startswith("train/")})
    assert load("folder:tree").labels.tolist() == [0] * 3 + [1] * 4
    with pytest.raises(DataError, match="has no split 'test', it has 'all'"):
        load("folder:tree", split="test")


def test_a_class_absent_from_a_split_keeps_the_labels_of_the_others(cache):
    put(cache / "tree", {file: TREE[file] for file in TREE if not file.startswith("test/cat")})
    test = load("folder:tree", split="test")
    assert test.classes == ("cat", "dog")
    assert set(test.labels.tolist()) == {1}


def test_grey_images_have_one_channel(cache):
    put(cache / "tree", {"a/0.png": png(0, mode="L"), "a/1.png": png(1, mode="L")})
    result = load("folder:tree", dtype="uint8")
    np.testing.assert_array_equal(result.images[1, 0], np.asarray(Image.open(io.BytesIO(png(1, mode="L")))))


def test_palettes_become_rgb(cache):
    content = png(0, mode="P")
    put(cache / "tree", {"a/0.png": content})
    image = Image.open(io.BytesIO(content))
    colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)[np.asarray(image)]
    np.testing.assert_array_equal(load("folder:tree", dtype="uint8").images[0].transpose(1, 2, 0), colours)


def test_class_folders_may_be_links(cache):
    put(cache / "elsewhere", {"0.png": png(0)})
    put(cache / "tree", {"a/0.png": png(1)})
    try:
        (cache / "tree" / "b").symlink_to(cache / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("this file system has no links")
    assert load("folder:tree").classes == ("a", "b")


def test_links_to_a_folder_above_are_not_followed_again(cache):
    """Two folders that hold each other have no end."""
    put(cache / "tree", {"a/0.png": png(0), "b/1.png": png(1)})
    try:
        for link, to in (("a/l1", "b"), ("a/l2", "b"), ("b/l1", "a"), ("b/l2", "a"), ("up", ".")):
            (cache / "tree" / link).symlink_to(cache / "tree" / to, target_is_directory=True)
    except OSError:
        pytest.skip("this file system has no links")
    with pytest.raises(DataError, match="is out of place"):
        load("folder:tree")


def test_a_link_to_itself_is_passed_over(cache):
    put(cache / "tree", {"a/0.png": png(0), "b/1.png": png(1)})
    try:
        (cache / "tree" / "up").symlink_to(cache / "tree", target_is_directory=True)
    except OSError:
        pytest.skip("this file system has no links")
    assert load("folder:tree").classes == ("a", "b")


def test_members_above_the_archive_are_no_hidden_files(cache):
    with zipfile.ZipFile(cache / "a.zip", "w") as archive:
        for name in ("../images/a/0.png", "../images/b/0.png"):
            archive.writestr(name, png(0))
    assert load("archive:a.zip").classes == ("a", "b")


def test_no_home_directory_is_said(monkeypatch):
    monkeypatch.setenv("IMPLICITREG_DATA", "~nobody-of-this-name/data")
    with pytest.raises(DataError, match="there is no such home directory"):
        load("mnist")
    with pytest.raises(DataError, match="there is no such home directory"):
        load("folder:~nobody-of-this-name/images")


def test_folders_need_no_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("IMPLICITREG_DATA", "~nobody-of-this-name/data")
    put(tmp_path / "tree", {"a/0.png": png(0), "b/1.png": png(1)})
    assert load(f"folder:{tmp_path / 'tree'}").classes == ("a", "b")


def test_relative_paths_are_looked_up_here_first_then_in_the_cache(cache, tmp_path, monkeypatch):
    here = tmp_path / "here"
    put(cache / "tree", {"cached/0.png": png(0)})
    here.mkdir()
    monkeypatch.chdir(here)
    assert load("folder:tree").classes == ("cached",)
    put(here / "tree", {"local/0.png": png(0)})
    assert load("folder:tree").classes == ("local",)


def test_sources_name_the_file_and_no_folder_above_it(cache):
    FORMS["archive:a.zip"](cache, TREE)
    FORMS["folder:tree"](cache, TREE)
    np.savez(cache / "a.npz", images=np.zeros((1, 2, 2)), labels=[0])
    assert load(f"archive:{cache / 'a.zip'}").source == "images from the archive a.zip"
    assert load(f"folder:{cache / 'tree'}").source == "images from the folder tree"
    assert load(f"npz:{cache / 'a.npz'}").source == "arrays from a.npz"


def tar_with(members: dict[str, tuple[bytes, str]], compression: str = "") -> bytes:
    """a/0.png and a/1.png, then members of other types: name -> (type, target)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as archive:
        for i in range(2):
            info = tarfile.TarInfo(f"a/{i}.png")
            info.size = len(png(i))
            archive.addfile(info, io.BytesIO(png(i)))
        for name, (kind, target) in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return stream.getvalue()


@pytest.mark.parametrize("compression", ["", "gz", "xz", "bz2"])
def test_links_in_a_tar_stand_for_the_files_they_point_to(compression, cache):
    links = {
        "b/hard.png": (tarfile.LNKTYPE, "a/1.png"),
        "b/soft.png": (tarfile.SYMTYPE, "../a/0.png"),
        "b/twice.png": (tarfile.SYMTYPE, "hard.png"),
        "b/up.png": (tarfile.SYMTYPE, "./../b/soft.png"),
        "README": (tarfile.SYMTYPE, "a/0.png"),
        ".hidden.png": (tarfile.SYMTYPE, "/etc/passwd"),
    }
    put(cache, {"a.tar": tar_with(links, compression)})
    result = load("archive:a.tar", dtype="uint8")
    pixels = [np.asarray(Image.open(io.BytesIO(png(i)))).transpose(2, 0, 1) for i in (0, 1, 1, 0, 1, 0)]
    np.testing.assert_array_equal(result.images, pixels)
    assert result.labels.tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "kind", "target", "message"),
    [
        ("b/0.png", tarfile.SYMTYPE, "/etc/passwd", "link to /etc/passwd, which is no file of this archive"),
        ("b/0.png", tarfile.SYMTYPE, "../../x.png", "no file of this archive"),
        ("b/0.png", tarfile.LNKTYPE, "a/9.png", "no file of this archive"),
        ("b", tarfile.SYMTYPE, "a", "b is a link to a, which is no file"),
        ("b/0.png", tarfile.SYMTYPE, "0.png", "no file of this archive"),
        ("b/0.png", tarfile.FIFOTYPE, "", "is a pipe or a device"),
        ("b/0.png", tarfile.CHRTYPE, "", "is a pipe or a device"),
    ],
    ids=["absolute", "outside", "missing", "folder", "itself", "pipe", "device"],
)
def test_links_that_cannot_be_followed_are_refused_not_dropped(name, kind, target, message, cache):
    put(cache, {"a.tar": tar_with({name: (kind, target)})})
    with pytest.raises(DataError, match=f"a.tar cannot be read.*{message}"):
        load("archive:a.tar")


def test_a_link_in_a_zip_is_refused(cache):
    link = zipfile.ZipInfo("b")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(cache / "a.zip", "w") as archive:
        archive.writestr("a/0.png", png(0))
        archive.writestr(link, "a")
    with pytest.raises(DataError, match="b is a link"):
        load("archive:a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["a/0.png", "./a/0.png"])
@pytest.mark.parametrize("form", ["a.zip", "a.tar"])
def test_two_files_of_one_name_are_refused(form, again, cache):
    if form == "a.zip":
        with zipfile.ZipFile(cache / form, "w") as archive:
            archive.writestr("a/0.png", png(0))
            archive.writestr(again, png(1))
    else:
        with tarfile.open(cache / form, "w") as archive:
            for name in ("a/0.png", again):
                info = tarfile.TarInfo(name)
                info.size = len(png(0))
                archive.addfile(info, io.BytesIO(png(0)))
    with pytest.raises(DataError, match=r"two files called a/0\.png"):
        load(f"archive:{form}")


def peak(name: str) -> int:
    """The memory that Python asked for while a data set was refused, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="at most"):
            load(name)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_member_that_inflates_to_much_is_refused_before_it_is_read(cache):
    """100 MB of zeros take 100 kB in a zip or a tar.gz; a tar header can announce a name of any length."""
    zeros, many = bytes(1 << 20), 100
    with zipfile.ZipFile(cache / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/0.png", "w") as file:
        for _ in range(many):
            file.write(zeros)
    for kind, name in ((tarfile.REGTYPE, "big.tar.gz"), (tarfile.XHDTYPE, "head.tar.gz")):
        info = tarfile.TarInfo("a/0.png")
        info.size, info.type = many << 20, kind
        with gzip.open(cache / name, "wb", compresslevel=1) as file:
            file.write(info.tobuf())
            for _ in range(many):
                file.write(zeros)
            file.write(bytes(1024))
    for file in ("a.zip", "big.tar.gz", "head.tar.gz"):
        assert (cache / file).stat().st_size < 1e6
        assert peak(f"archive:{file}") < 20e6


def test_an_array_that_inflates_to_much_is_refused_before_it_is_read(cache, monkeypatch):
    monkeypatch.setattr(datasets, "_LARGEST_ARRAY", 50 << 20)
    np.savez_compressed(cache / "a.npz", images=np.zeros((60, 1 << 10, 1 << 10), np.uint8), labels=np.zeros(60, int))
    assert peak("npz:a.npz") < 20e6


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_no_image(cache):
    """To open it would be to wait for ever."""
    put(cache / "tree", {"a/0.png": png(0)})
    os.mkfifo(cache / "tree" / "a" / "1.png")
    with pytest.raises(DataError, match=r"1\.png cannot be read.*it is a pipe"):
        load("folder:tree")


# what the eight orientations of EXIF do to an image, rows first
TURNS = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_photograph_stands_upright(orientation, kind, cache):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(stream, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    put(cache, {f"tree/a/0.{kind.lower()}": stream.getvalue()})
    (image,) = load("folder:tree", dtype="uint8").images
    np.testing.assert_array_equal(image.transpose(1, 2, 0), TURNS[orientation](pixels))


def test_errors_hold_no_addresses_of_objects(cache):
    put(cache, {"tree/a/0.png": b"no image"})
    with pytest.raises(DataError, match="no image that Pillow knows") as caught:
        load("folder:tree")
    assert " at 0x" not in str(caught.value)


def test_members_that_point_outside_are_never_written(cache):
    before = contents(cache.parent)
    above, root = {"../escaped/0.png": png(0)}, {"/etc/cat/0.png": png(1)}
    put(cache, {"a.tar": tar_bytes(above), "b.tar": tar_bytes(root), "c.tar": tar_bytes(above | root)})
    assert load("archive:a.tar").classes == ("escaped",)
    assert load("archive:b.tar").classes == ("cat",)
    with pytest.raises(DataError, match="is out of place beside"):
        load("archive:c.tar")
    assert contents(cache.parent) == sorted([*before, "cache/a.tar", "cache/b.tar", "cache/c.tar"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no images; expected"),
        ({"a/readme.txt": b"x"}, "holds no images; expected"),
        ({"0.png": png(0)}, r"0\.png is out of place"),
        ({"a/0.png": png(0), "train/a/0.png": png(0)}, r"train/a/0\.png is out of place"),
        ({"train/a/0.png": png(0), "val/a/0.png": png(0)}, r"val/a/0\.png is out of place"),
        ({"a/0.png": png(0), "a/sub/1.png": png(0)}, r"a/sub/1\.png is out of place"),
        ({"a/0.png": png(0), "b/1.png": png(1, size=(5, 6))}, r"b/1\.png is \(3, 5, 6\).*a/0\.png is \(3, 4, 6\)"),
        ({"a/0.png": png(0), "b/1.png": png(1, mode="L")}, r"b/1\.png is \(1, 4, 6\)"),
        ({"a/0.png": png(0, mode="RGBA")}, r"a/0\.png cannot be read.*mode RGBA"),
        ({"a/0.png": png(0, mode="P", transparency=0)}, r"a/0\.png cannot be read.*mode P.*without transparency"),
        ({"a/0.png": png(0)[:60]}, r"a/0\.png cannot be read"),
        ({"a/0.png": png(0), "a/1.png": b"no image"}, r"a/1\.png cannot be read.*replace or remove"),
        ({"a/0.png": b""}, r"a/0\.png cannot be read"),
    ],
    ids=[
        "empty", "no image files", "no class folder", "split and bare", "val", "nested classes", "mixed sizes",
        "mixed channels", "alpha", "transparent colour", "truncated image", "no image", "empty image",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["folder:tree", "archive:a.tar.gz", "archive:a.zip"])
def test_trees_out_of_order_name_the_offender(name, files, message, cache):
    (cache / "tree").mkdir()
    FORMS[name](cache, files)
    with pytest.raises(DataError, match=message):
        load(name)


def truncations(content: bytes) -> dict[str, bytes]:
    return {"empty": b"", "half": content[: len(content) // 2], "no archive": b"x" * 2000}


@pytest.mark.parametrize("file", ["a.tar", "a.tar.gz", "a.tar.xz", "a.zip"])
@pytest.mark.parametrize("damage", ["empty", "half", "no archive"])
def test_damaged_archives_are_named(file, damage, cache):
    FORMS[f"archive:{file}"](cache, TREE)
    put(cache, {file: truncations((cache / file).read_bytes())[damage]})
    with pytest.raises(DataError, match=rf"{file} cannot be read.*copy or make it again"):
        load(f"archive:{file}")


def test_a_tar_cut_between_two_members_is_refused_although_tarfile_reads_it(cache):
    content = tar_bytes(TREE)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        cut = archive.getmembers()[5].offset
    with tarfile.open(fileobj=io.BytesIO(content[:cut])) as archive:
        assert len(archive.getmembers()) == 5
    put(cache, {"a.tar": content[:cut]})
    with pytest.raises(DataError, match="end-of-archive block is missing"):
        load("archive:a.tar")


def test_the_checksum_at_the_end_of_a_gzipped_tar_is_compared(cache):
    content = bytearray(tar_bytes(TREE, "gz"))
    content[-8] ^= 1  # the lowest byte of gzip's CRC-32
    put(cache, {"a.tar.gz": bytes(content)})
    with pytest.raises(DataError, match="CRC check failed"):
        load("archive:a.tar.gz")


# npz


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 1, 3, 5), (4, 3, 3, 5)], ids=["NHW", "N1HW", "N3HW"])
def test_npz_images_come_back_nchw(shape, cache):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez_compressed(cache / "a.npz", images=images, labels=np.array([2, 0, 1, 2], np.uint8))
    result = load("npz:a.npz", dtype="uint8")
    assert result.images.shape == ((4, 1, 3, 5) if len(shape) == 3 else shape)
    np.testing.assert_array_equal(result.images.ravel(), images.ravel())
    assert result.labels.tolist() == [2, 0, 1, 2]
    assert (result.labels.dtype, result.classes) == (np.int64, ("0", "1", "2"))


def npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


GOOD = {"images": np.zeros((4, 3, 5), np.uint8), "labels": np.arange(4)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npz(labels=GOOD["labels"]), "images"),
        (npz(images=GOOD["images"]), "labels"),
        (npz(images=np.array([None, 1]), labels=[0, 1]), "Python objects"),
        (npz(**GOOD | {"images": np.zeros((4, 6, 5, 3), np.uint8)}), r"shape \(4, 6, 5, 3\).*C = 1 or 3"),
        (npz(**GOOD | {"images": np.zeros((4, 5, 6, 2), np.uint8)}), r"shape \(4, 5, 6, 2\)"),
        (npz(**GOOD | {"images": np.zeros((0, 5, 6), np.uint8)}), r"shape \(0, 1, 5, 6\)"),
        (npz(**GOOD | {"images": np.full((4, 3, 5), 2.0)}), r"float64 from 2 to 2, expected .* floats in \[0, 1\]"),
        (npz(**GOOD | {"images": np.full((4, 3, 5), np.nan)}), r"floats in \[0, 1\]"),
        (npz(**GOOD | {"images": np.zeros((4, 3, 5), int)}), "images are int64"),
        (npz(**GOOD | {"labels": np.arange(3)}), "expected 4 integers"),
        (npz(**GOOD | {"labels": np.arange(4.0)}), "labels are float64"),
        (npz(**GOOD | {"labels": np.arange(4) - 1}), "labels run from -1"),
        (npz(**GOOD | {"labels": np.array([0, 1, 2, 10**12])}), "to 1000000000000"),
        (npz(**GOOD)[:100], "BadZipFile"),
        (npz(**GOOD)[:-40], "BadZipFile"),
        (npy(np.zeros(3)), "a single array"),
        (pickle.dumps(GOOD), "Python objects, which are not loaded"),
        (npy(np.array([None])), "Python objects, which are not loaded"),
        (b"", "EOFError"),
    ],
    ids=[
        "no images", "no labels", "pickled", "channels last", "channels", "empty", "above one", "nan", "integers",
        "sizes", "float labels", "negative label", "huge label", "truncated", "no directory", "npy", "pickle",
        "pickled npy", "empty file",
    ],
)  # fmt: skip
def test_npz_files_that_are_wrong_are_named(content, message, cache):
    put(cache, {"a.npz": content})
    with pytest.raises(DataError, match=f"a.npz cannot be read.*({message})"):
        load("npz:a.npz")


def test_npz_has_no_train_split(cache):
    np.savez(cache / "a.npz", **GOOD)
    with pytest.raises(DataError, match="has no split 'train', it has 'all'"):
        load("npz:a.npz", split="train")


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "cifar100"}, ValueError, "name = 'cifar100': expected one of 'digits', 'mnist', .*'npz:PATH'"),
        ({"name": ""}, ValueError, "name = ''"),
        ({"name": "Digits"}, ValueError, "name = 'Digits'"),
        ({"name": "folder"}, ValueError, "name = 'folder'"),
        ({"name": "folder:"}, ValueError, "name = 'folder:'"),
        ({"name": "folder:PATH/no"}, DataError, "no folder PATH/no in the working directory .*IMPLICITREG_DATA"),
        ({"name": "archive:no.zip"}, DataError, r"no file no\.zip in the working directory .*IMPLICITREG_DATA"),
        ({"name": "tar:no.tar"}, ValueError, "name = 'tar:no.tar'"),
        ({"name": 3}, TypeError, "name = 3"),
        ({"name": None}, TypeError, "name = None"),
        ({"split": "validation"}, ValueError, "split = 'validation': expected one of 'all', 'train', 'test'"),
        ({"split": None}, ValueError, "split = None"),
        ({"dtype": "float64"}, ValueError, "dtype = 'float64'"),
        ({"limit": 0}, ValueError, "limit = 0"),
        ({"limit": -5}, ValueError, "limit = -5"),
        ({"limit": 2.5}, TypeError, "limit = 2.5"),
        ({"seed": -1}, ValueError, "seed = -1"),
        ({"seed": None}, TypeError, "seed = None"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        load(**{"name": "digits"} | arguments)


def test_every_data_error_is_a_value_error():
    assert issubclass(DataError, ValueError)


def test_a_dataset_of_many_classes_is_shown_in_brief():
    classes = tuple(f"class {k}" for k in range(65_536))
    many = datasets.Dataset(np.zeros((1, 1, 2, 2), np.float32), np.zeros(1, np.int64), classes, "all", "here")
    assert "classes=<65536 items>" in repr(many)
    assert len(repr(many)) < 500
