"""Image data sets: one call, the same arrays everywhere, and words that say what was read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import posixpath
import stat
import struct
import tarfile
import textwrap
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from PIL import Image, ImageOps, UnidentifiedImageError

with warnings.catch_warnings():  # in a notebook pooch's tqdm asks for ipywidgets; our progress bar needs none
    warnings.simplefilter("ignore")
    import pooch

__all__ = ["DataError", "Dataset", "load"]

_SPLITS = ("train", "test")
_DIGITS = tuple("0123456789")
_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_LARGEST_FILE, _LARGEST_ARRAY = 1 << 26, 1 << 31
"""What an image file may have, and an array of an npz file, in bytes, once it is inflated."""
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
_BROKEN = (
    OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, SyntaxError, OverflowError, struct.error,
    zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, Image.DecompressionBombError, MemoryError,
)  # fmt: skip
"""What the standard library, NumPy, SciPy and Pillow raise on damaged files."""


class DataError(ValueError):
    """Data that are absent, damaged, or not what they should be; the message names the file and the remedy."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images.

    Attributes
    ----------
    images : (n, C, H, W) array
        float32 in [0, 1], or uint8 in 0 … 255; 0 is black.
    labels : (n,) int64 array
        Indices into `classes`.
    classes : tuple of str
        The names of the classes, those absent from the split or the draw included.
    split : str
        ``"train"``, ``"test"`` or ``"all"``: what was asked for.
    source : str
        What was read, in words fit for a figure caption.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    split: str
    source: str
    __repr__ = brief


@dataclass(frozen=True)
class _Source:
    """Labels at once, images on demand: ``take(indices)`` gives uint8 in 0 … 255 or floats in [0, 1], NCHW."""

    labels: np.ndarray
    classes: tuple[str, ...]
    words: str
    take: Callable[[np.ndarray], np.ndarray]


def load(
    name: str = "digits", *, split: str = "all", limit: int | None = None, dtype: str = "float32", seed: int = 0
) -> Dataset:
    r"""Labelled images by name, from scikit-learn, an official download, or files of your own.

    With `limit`, a class-balanced draw: the images of each class are put in a random order, and the draw takes
    all the first ones, then all the second ones, …, so that the class counts :math:`n_c` of the draw satisfy

    .. math:: n_c = \min(N_c, m) \text{ or } \min(N_c, m + 1) \text{ for one } m, \qquad
              \textstyle\sum_c n_c = \min(\mathtt{limit}, N),

    where the source has :math:`N_c` images of class :math:`c` and :math:`N` in all.

    Parameters
    ----------
    name : str
        ``"digits"`` (always there), ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"``, ``"svhn"`` (official files,
        downloaded once, MD5 checksums verified), or a path of your own: ``"folder:PATH"`` (one folder of images
        a class, inside ``train/`` and ``test/`` or not), ``"archive:PATH"`` (the same in a ``.zip`` or a tar file,
        compressed or not; nothing is unpacked to disk), ``"npz:PATH"`` (arrays ``images`` and ``labels``).
    split : str
        ``"train"``, ``"test"``, or ``"all"`` (train, then test).
    limit : int, optional
        At most this many images. Of an archive or a folder only these are decoded.
    dtype : str
        ``"float32"`` in [0, 1] or ``"uint8"`` in 0 … 255.
    seed : int
        Seeds the draw; nothing else is random.

    Returns
    -------
    Dataset
        ``images`` (n, C, H, W), ``labels`` (n,), ``classes``, ``split``, ``source``. Without `limit` in the order
        of the source: of a folder or an archive train before test, then by class, then by file name, whatever the
        order on disk. With `limit` in the order of the draw, in which every beginning is itself a balanced draw:
        a smaller `limit` gives the first rows of a larger one.

    Raises
    ------
    ValueError
        An argument that is unknown or out of range; `DataError`, a ValueError, where the data are at fault:
        a file is missing and cannot be downloaded, has a wrong checksum, is damaged, or lacks the split.
    TypeError
        A name that is no string, a limit or a seed that is no integer.

    Notes
    -----
    The environment variable ``IMPLICITREG_DATA`` names the folder where official files are kept (default: the
    user's cache folder). They are looked for in it and in its subfolder ``name``, MNIST's and Fashion-MNIST's
    gzipped or not. A relative PATH is looked up in the working directory, then in that folder.

    Digits are divided by 16, their white; as uint8 they are rounded to 255/16 of the value. They have no official
    split: the test images are every fifth of each class in scikit-learn's order, 355 of 1797.

    An ``npz`` file holds ``images`` (n, H, W) or (n, C, H, W) with C = 1 or 3, uint8 or floats in [0, 1],
    and ``labels`` (n,), integers from 0.

    A photograph is turned as its EXIF orientation says. Image files have at most 64 MiB, arrays of an npz file 2 GiB.
    A link in a tar file stands for the member of the same file that it points to; one that points elsewhere, or to a
    folder, is an error, as are links in a zip file and files that are no regular ones.

    References
    ----------
    Digits: E. Alpaydin, C. Kaynak, 1998 (UCI). MNIST: Y. LeCun, C. Cortes, C. Burges. Fashion-MNIST: H. Xiao,
    K. Rasul, R. Vollgraf, 2017. CIFAR-10: A. Krizhevsky, 2009. SVHN (cropped digits): Y. Netzer et al., 2011.

    Examples
    --------
    >>> from implicitreg import datasets
    >>> digits = datasets.load("digits")
    >>> digits.images.shape, len(digits.classes), digits.source
    ((1797, 1, 8, 8), 10, 'digits, bundled with scikit-learn')
    >>> draw = datasets.load("digits", limit=50)
    >>> np.bincount(draw.labels)
    array([5, 5, 5, 5, 5, 5, 5, 5, 5, 5])
    """
    _validate.choice("split", split, ("all", *_SPLITS))
    _validate.choice("dtype", dtype, ("float32", "uint8"))
    seed = _validate.integer("seed", seed, low=0)
    limit = None if limit is None else _validate.integer("limit", limit, low=1)
    source = _source(name, split)
    chosen = np.arange(len(source.labels)) if limit is None else _balanced(source.labels, limit, seed)
    images = _scaled(source.take(chosen), dtype)
    return Dataset(images, source.labels[chosen], source.classes, split, source.words)


def _source(name: str, split: str) -> _Source:
    if not isinstance(name, str):
        raise TypeError(f"name = {name!r}: expected a string")
    kind, _, path = name.partition(":")
    if path and kind in _OWN:
        return _OWN[kind](_own_path(kind, path), split)
    known = ["digits", *_OFFICIAL]
    _validate.choice("name", name, [*known, *(f"{kind}:PATH" for kind in _OWN)] if name not in known else known)
    return _bundled(split) if name == "digits" else _official(name, split)


def _balanced(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = _rank_in_class(labels[order])
    return order[np.argsort(rank, kind="stable")[:limit]]


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """0 for the first image of its class, 1 for the second, …"""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _scaled(images: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "uint8":
        scaled = images if images.dtype == np.uint8 else np.rint(255 * images).astype(np.uint8)
    elif images.dtype == np.uint8:
        scaled = np.divide(images, 255, dtype=np.float32)
    else:
        scaled = images.astype(np.float32)
    return np.ascontiguousarray(scaled)


@contextmanager
def _reading(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{path} cannot be read ({_brief(error)}); {remedy}") from error


def _brief(error: BaseException) -> str:
    words = "no image that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
    return textwrap.shorten(f"{type(error).__name__}: {words}", 160)


def _cache() -> Path:
    return _expanded(Path(os.environ.get("IMPLICITREG_DATA") or pooch.os_cache("implicitreg")))


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: there is no such home directory; write the path out, and set IMPLICITREG_DATA to a "
                        "folder for the data") from error  # fmt: skip


# Digits


def _bundled(split: str) -> _Source:
    from sklearn.datasets import load_digits

    bundle = load_digits()
    labels = bundle.target.astype(np.int64)
    test = _rank_in_class(labels) % 5 == 4
    kept = {"all": np.full(len(labels), True), "train": ~test, "test": test}[split]
    images = bundle.images[kept][:, None] / 16
    return _Source(labels[kept], _DIGITS, "digits, bundled with scikit-learn", images.__getitem__)


# Official files


@dataclass(frozen=True)
class _Official:
    title: str
    url: str
    classes: tuple[str, ...]
    files: dict[str, tuple[str, ...]]  # split -> what to read
    md5: dict[str, str]  # gzipped idx files have two entries: the second, less ".gz", is of the unpacked file
    read: Callable[..., tuple[np.ndarray, np.ndarray]]  # (split, path, …) -> images NCHW uint8, labels


def _official(name: str, split: str) -> _Source:
    official = _OFFICIAL[name]
    wanted = _SPLITS if split == "all" else (split,)
    paths = {part: [_obtained(name, file) for file in official.files[part]] for part in wanted}
    parts = [_read_official(official, part, paths[part]) for part in wanted]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    files = ", ".join(dict.fromkeys(path.name for part in wanted for path in paths[part]))
    words = f"{official.title}, official files {files} (MD5 verified)"
    return _Source(labels.astype(np.int64), official.classes, words, images.__getitem__)


def _read_official(official: _Official, split: str, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    with _reading(paths[0], f"delete it, and download it again from {official.url}"):
        images, labels = official.read(split, *paths)
        if len(images) != len(labels) or len(labels) == 0:
            raise ValueError(f"{len(images)} images and {len(labels)} labels")
        if labels.max() >= len(official.classes):
            raise ValueError(f"label {labels.max()} of {len(official.classes)} classes")
    return images, labels


def _obtained(name: str, file: str) -> Path:
    """The path of a verified copy, downloaded where there is none."""
    official = _OFFICIAL[name]
    others = {md5 for other in _OFFICIAL.values() for md5 in other.md5.values()}
    for path in _copies(name, file):
        md5 = _md5(path)
        if md5 == official.md5[path.name]:
            return path
        if path.parent == _cache() and md5 in others:  # MNIST and Fashion-MNIST have the same file names
            continue
        raise DataError(
            f"{path} has the MD5 {md5}, the official file has {official.md5[path.name]}: it is incomplete or "
            f"altered. Delete it, download {official.url}{file} and put it in {_cache() / name}"
        )
    return _downloaded(name, file)


def _copies(name: str, file: str) -> list[Path]:
    names = [known for known in (file, file.removesuffix(".gz")) if known in _OFFICIAL[name].md5]
    paths = [folder / known for folder in (_cache() / name, _cache()) for known in names]
    return [path for path in paths if path.is_file()]


def _md5(path: Path) -> str:
    with _reading(path, "make it readable"):
        return pooch.file_hash(path, alg="md5")


def _downloaded(name: str, file: str) -> Path:
    from tqdm import tqdm

    official, folder = _OFFICIAL[name], _cache() / name
    new = [place for place in (folder, folder.parent) if not place.exists()]
    try:
        # pooch writes to a temporary file and moves it once its checksum is right; disable=None: bars on terminals only
        with _quiet_pooch(), tqdm(desc=file, total=1, unit="B", unit_scale=True, disable=None) as bar:
            downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16)
            known = f"md5:{official.md5[file]}"
            return Path(pooch.retrieve(official.url + file, known, file, folder, downloader=downloader))
    except (OSError, ValueError) as error:
        for place in new:
            with suppress(OSError):
                place.rmdir()
        raise DataError(
            f"{name} needs {file}, which is not in {folder} and could not be downloaded ({_brief(error)}). Download "
            f"{official.url}{file} and put it there, or set IMPLICITREG_DATA to the folder that has it.{_hint(name)}"
        ) from error


def _hint(name: str) -> str:
    splits = [part for part, files in _OFFICIAL[name].files.items() if all(_copies(name, file) for file in files)]
    return "".join(f" Present without a download: split={part!r}." for part in splits)


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _read_idx_pair(split: str, images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    return _idx(images, 3)[:, None], _idx(labels, 1)


def _idx(path: Path, ndim: int) -> np.ndarray:
    """The unsigned bytes of an idx file: 0, 0, 8 (their type), ndim, the big-endian sizes, then the data."""
    with _reading(path, "replace it by the official file"):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if data[:4] != bytes([0, 0, 8, ndim]):
            raise ValueError(f"it begins with {data[:4].hex(' ')}, an idx file with 00 00 08 0{ndim}")
        start = 4 + 4 * ndim
        shape = struct.unpack(f">{ndim}I", data[4:start])
        if len(data) - start != math.prod(shape):
            raise ValueError(f"{len(data) - start} bytes of data, the header says {math.prod(shape)}")
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _read_cifar(split: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label and 3 x 32 x 32 pixels, colour first (cifar-10-batches-bin)."""
    batches = ["test_batch.bin"] if split == "test" else [f"data_batch_{i}.bin" for i in range(1, 6)]
    found = {PurePosixPath(name).name: read() for name, read in _tar(path) if PurePosixPath(name).name in batches}
    records = np.concatenate([np.frombuffer(found[batch], np.uint8).reshape(-1, 3073) for batch in batches])
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _read_svhn(split: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """X is (32, 32, 3, n); y is (n, 1) with 10 for the digit 0."""
    from scipy.io import loadmat

    contents = loadmat(path)
    return contents["X"].transpose(3, 2, 0, 1), contents["y"].ravel() % 10


_IDX_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_OFFICIAL = {
    "mnist": _Official(
        title="MNIST",
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        classes=_DIGITS,
        files=_IDX_FILES,
        md5={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        read=_read_idx_pair,
    ),
    "fashion_mnist": _Official(
        title="Fashion-MNIST",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                 "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        files=_IDX_FILES,
        md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        read=_read_idx_pair,
    ),
    "cifar10": _Official(
        title="CIFAR-10",
        url="https://www.cs.toronto.edu/~kriz/",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        files={"train": ("cifar-10-binary.tar.gz",), "test": ("cifar-10-binary.tar.gz",)},
        md5={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        read=_read_cifar,
    ),
    "svhn": _Official(
        title="SVHN",
        url="http://ufldl.stanford.edu/housenumbers/",
        classes=_DIGITS,
        files={"train": ("train_32x32.mat",), "test": ("test_32x32.mat",)},
        md5={
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
        read=_read_svhn,
    ),
}  # fmt: skip


# Files of your own


def _own_path(kind: str, path: str) -> Path:
    own = _expanded(Path(path))
    there = Path.is_dir if kind == "folder" else Path.is_file
    if there(own):
        return own
    if not own.is_absolute() and there(_cache() / own):
        return _cache() / own
    what = "folder" if kind == "folder" else "file"
    raise DataError(
        f"name = {kind + ':' + path!r}: there is no {what} {own} in the working directory {Path.cwd()} "
        f"nor in {_cache()}; check the path, or set IMPLICITREG_DATA to the folder that has it"
    )


def _require_split(path: Path, split: str, present: Iterable[str]) -> None:
    if split != "all" and split not in present:
        raise DataError(f"{path} has no split {split!r}, it has {', '.join(map(repr, sorted(present)))}; ask for that")


def _npz(path: Path, split: str) -> _Source:
    _require_split(path, split, ["all"])
    with _reading(path, "save it with numpy.savez(PATH, images=…, labels=…)"):
        images, labels = _arrays(path, "images", "labels")
        images = images[:, None] if images.ndim == 3 else images
        _check_arrays(images, labels)
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    return _Source(labels.astype(np.int64), classes, f"arrays from {path.name}", images.__getitem__)


def _arrays(path: Path, *names: str) -> list[np.ndarray]:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("it holds a single array without a name")
        with file:
            for info in file.zip.infolist():
                _check_size(info.filename, info.file_size, _LARGEST_ARRAY)
            return [file[name] for name in names]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise ValueError("it holds Python objects, which are not loaded; expected arrays of numbers") from None


def _check_size(name: str, size: int, limit: int = _LARGEST_FILE) -> None:
    if size > limit:
        raise ValueError(f"{name} would have {size / 2**20:,.0f} MiB, expected at most {limit >> 20:,}")


def _check_arrays(images: np.ndarray, labels: np.ndarray) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.size == 0:
        raise ValueError(f"images have shape {images.shape}, expected (n, H, W) or (n, C, H, W) with C = 1 or 3")
    if images.dtype != np.uint8 and (images.dtype.kind != "f" or not ((images >= 0) & (images <= 1)).all()):
        values = str(images.dtype)
        values += f" from {images.min():g} to {images.max():g}" if images.dtype.kind in "iuf" else ""
        raise ValueError(f"images are {values}, expected uint8 or floats in [0, 1]")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}, expected {len(images)} integers")
    if labels.min() < 0 or labels.max() > 65535:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, expected 0 … 65535")


_Members = Iterator[tuple[str, Callable[[], bytes]]]
"""Names of files, with "/" between folders, each with a function that reads it before the next is asked for."""


def _folder(path: Path, split: str) -> _Source:
    return _tree(path, split, _walk, f"images from the folder {path.resolve().name}")


def _archive(path: Path, split: str) -> _Source:
    members = _zip if path.suffix.lower() == ".zip" else _tar
    return _tree(path, split, members, f"images from the archive {path.name}")


def _walk(path: Path) -> _Members:
    def fail(error: OSError) -> None:  # os.walk passes over folders that it cannot open
        raise error

    found, above = [], {str(path): frozenset([_number(path)])}  # by folder: itself and the folders that it lies in
    for folder, folders, files in os.walk(path, followlinks=True, onerror=fail):
        inside = {name: _number(Path(folder, name)) for name in folders}
        folders[:] = [name for name in folders if inside[name] not in above[folder]]  # a link to one of them has no end
        above |= {os.path.join(folder, name): above[folder] | {inside[name]} for name in folders}
        found += [Path(folder, file) for file in files]
    for file in sorted(found):
        yield file.relative_to(path).as_posix(), partial(_read_file, file)


def _number(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _read_file(file: Path) -> bytes:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would be to wait for its other end
        raise ValueError("it is a pipe, a socket or a device")
    _check_size(file.name, status.st_size)
    return file.read_bytes()


def _zip(path: Path) -> _Members:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if stat.S_ISLNK(info.external_attr >> 16) and not _hidden(info.filename):
                raise ValueError(f"{info.filename} is a link; pack the files themselves")
            if not info.is_dir():
                yield info.filename, partial(_read_zipped, archive, info)


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    _check_size(info.filename, info.file_size)
    return archive.read(info)


def _tar(path: Path) -> _Members:
    with _inflated(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        files, links = {}, []
        for member in archive:
            if member.isfile():
                files[posixpath.normpath(member.name)] = member
                yield member.name, partial(_read_tarred, archive, member)
            elif not member.isdir() and not _hidden(member.name):
                links.append(member)
        # tarfile takes the end of a truncated file, and a damaged header, for the end of the archive
        file.seek(archive.offset)
        if file.read(512) != bytes(512):
            raise tarfile.ReadError("the end-of-archive block is missing: truncated or damaged")
        while file.read(1 << 20):  # to the checksum that gzip, xz and bzip2 compare at the end
            pass
        files |= {posixpath.normpath(link.name): link for link in links}
        ends = [(_linked(link, files), link.name) for link in links]
        for end, name in sorted(ends, key=lambda pair: pair[0].offset):  # one more pass over a compressed file
            yield name, partial(_read_tarred, archive, end)


def _linked(member: tarfile.TarInfo, files: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo:
    """The regular file of the archive at the end of a chain of links."""
    end, seen = member, set()
    while end.islnk() or end.issym():
        # a hard link counts from the top of the archive, a symbolic one from its own folder
        above = posixpath.dirname(end.name) if end.issym() else ""
        target = posixpath.normpath(posixpath.join(above, end.linkname))
        if target not in files or target in seen:
            raise ValueError(f"{member.name} is a link to {member.linkname}, which is no file of this archive")
        seen.add(target)
        end = files[target]
    if not end.isfile():
        raise ValueError(f"{end.name} is a pipe or a device")
    return end


def _read_tarred(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    _check_size(member.name, member.size)
    return archive.extractfile(member).read()


class _Bounded(io.BufferedIOBase):
    """A file of which nobody reads more at once than an image may have, whatever size a header announces."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_FILE:
            raise ValueError(f"a header announces {size} bytes, expected at most {_LARGEST_FILE}")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


_INFLATE = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open, b"\x5d\x00\x00": lzma.open}


@contextmanager
def _inflated(path: Path) -> Iterator[_Bounded]:
    with path.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        inflate = next((opener for magic, opener in _INFLATE.items() if start.startswith(magic)), None)
        if inflate is None:
            yield _Bounded(file)
        else:
            with inflate(file) as inner:
                yield _Bounded(inner)


def _tree(path: Path, split: str, members: Callable[[Path], _Members], words: str) -> _Source:
    """Images sorted into one folder a class, the folders inside train/ and test/ or not."""
    with _reading(path, "copy or make it again"):
        placed = _unique((name, place) for name, _ in members(path) if (place := _place(name)))
    _check_layout(path, placed)
    _require_split(path, split, {part for _, part, _ in placed.values()})
    names = [name for name, (_, part, _) in placed.items() if split in ("all", part)]
    names.sort(key=lambda name: (placed[name][1] == "test", placed[name][2], name))
    classes = tuple(sorted({label for _, _, label in placed.values()}))
    index = {label: i for i, label in enumerate(classes)}
    labels = np.array([index[placed[name][2]] for name in names], dtype=np.int64)

    def take(chosen: np.ndarray) -> np.ndarray:
        with _reading(path, "copy or make it again"):
            return _decoded(path, members(path), [names[i] for i in chosen])

    return _Source(labels, classes, words, take)


def _place(name: str) -> tuple[tuple[str, ...], str, str] | None:
    """(folders above, split or "all", class) of an image; None for hidden files and what is no image."""
    *folders, file = PurePosixPath(name).parts
    if PurePosixPath(file).suffix.lower() not in _SUFFIXES or _hidden(name):
        return None
    *above, label = folders or [""]
    if above and above[-1] in _SPLITS:
        return tuple(above[:-1]), above[-1], label
    return tuple(above), "all", label


def _hidden(name: str) -> bool:
    parts = [part for part in PurePosixPath(name).parts if part != ".."]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _unique(placed: Iterable[tuple[str, tuple[tuple[str, ...], str, str]]]) -> dict:
    """Names and places; an archive can hold two files of one name."""
    found, normal = {}, set()
    for name, place in placed:
        if (plain := posixpath.normpath(name)) in normal:
            raise ValueError(f"it holds two files called {plain}")
        normal.add(plain)
        found[name] = place
    return found


def _check_layout(path: Path, placed: dict[str, tuple[tuple[str, ...], str, str]]) -> None:
    expected = "CLASS/IMAGE throughout, or train/CLASS/IMAGE and test/CLASS/IMAGE"
    if not placed:
        raise DataError(f"{path} holds no images; expected {expected}, with {' '.join(sorted(_SUFFIXES))}")
    first = min(placed)
    for name in sorted(placed):
        above, part, label = placed[name]
        if not label:
            raise DataError(f"{path}: {name} is out of place, in no folder of a class; expected {expected}")
        if above != placed[first][0] or (part == "all") != (placed[first][1] == "all"):
            raise DataError(f"{path}: {name} is out of place beside {first}; expected {expected}")


def _decoded(path: Path, members: _Members, names: list[str]) -> np.ndarray:
    """The images called `names`, in that order, read in the order of `members`."""
    row = {name: i for i, name in enumerate(names)}
    images, first = np.empty((0,), np.uint8), ""
    for name, read in members:
        if name not in row:
            continue
        image = _pixels(path, name, read)
        if not first:
            images, first = np.empty((len(names), *image.shape), np.uint8), name
        if image.shape != images.shape[1:]:
            raise DataError(
                f"{path}: {name} is {image.shape} (channels, height, width), {first} is {images.shape[1:]}; "
                "make all images the same size and all grey or all RGB"
            )
        images[row.pop(name)] = image
        if not row:
            return images
    raise DataError(f"{path}: {min(row)} went away while it was read; try again")


def _pixels(path: Path, name: str, read: Callable[[], bytes]) -> np.ndarray:
    with _reading(path / name, "replace or remove this image"), Image.open(io.BytesIO(read())) as image:
        if image.mode not in _MODES or "transparency" in image.info:
            raise ValueError(f"mode {image.mode}, expected 8-bit grey or RGB without transparency")
        mode = _MODES[image.mode]
        if image.format != "TIFF":  # which Pillow turns as it loads
            ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(image.convert(mode))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


_OWN = {"folder": _folder, "archive": _archive, "npz": _npz}
