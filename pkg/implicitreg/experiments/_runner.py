"""Runs an experiment piece by piece, resumes it after an interruption, and leaves a record."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import re
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from implicitreg import _console, _places, _validate, experiments, records
from implicitreg._torch import torch
from tqdm import tqdm

CONNECT = 5  # seconds that a Dask scheduler has to answer


def describe() -> dict[str, str]:
    """One line about each experiment, the first of its module."""
    folder = Path(__file__).parent
    texts = {
        name: ast.get_docstring(ast.parse((folder / f"{name}.py").read_text("utf8"))) for name in experiments.NAMES
    }
    return {name: (text or "").partition("\n")[0] for name, text in texts.items()}


def tag(data: str) -> str:
    """The name of a data set inside the name of a record: letters, digits and underscores, without folders.

    Examples
    --------
    >>> tag("mnist"), tag("archive:images/cifar10_jpeg.tar.xz")
    ('mnist', 'cifar10_jpeg')
    """
    kind, _, path = _validate.text("data", data).partition(":")
    return re.sub(r"[^a-z0-9]+", "_", (PurePath(path).name or kind).split(".")[0].lower()).strip("_")


def run(
    name: str, *, data: str | None = None, device: str = "auto", quick: bool = False,
    folder: Path | None = None, unfinished: Path | None = None, jobs: int = 1, dask: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run an experiment and write its record ``NAME.json``, or ``NAME_DATA.json`` for data other than its own.

    Every finished piece of work is kept in a file of its own folder, so that a run that was interrupted goes on where
    it stopped; pieces made with other settings, on another device or by another version of the experiment's module
    are discarded.

    Pieces are measured one after the other here, or side by side in processes or on a cluster. Each has one thread, so
    that on machines of one kind the record is the same bit for bit, whatever the number of processes. Side by side, a
    piece that fails stops no other: its error is raised when these are done and kept.

    Parameters
    ----------
    name : str
        One of `implicitreg.experiments.NAMES`.
    data : str, optional
        As in `datasets.load`; by default the experiment's own.
    device : str
        ``"auto"`` (a CUDA device where torch sees one), ``"cpu"`` or ``"cuda"``.
    quick : bool
        A run of seconds that prints its results and writes nothing.
    folder, unfinished : Path, optional
        Where the record and the pieces go; by default ``book/records`` and ``_build/experiments`` of the checkout or,
        with a package installed without it, ``implicitreg_records`` in the working directory and ``unfinished`` in it.
    jobs : int
        How many processes measure the pieces; more than one on the CPU only.
    dask : str, optional
        The address of a Dask scheduler, ``"tcp://HOST:PORT"``, whose workers measure the pieces on their CPUs. They
        need this version of the package, and the data. The package ``distributed`` is an extra of this one.

    Returns
    -------
    dict
        The results: one entry a piece, and ``"summary"`` where the experiment has one. ``wall_seconds`` in the record
        is the sum over the pieces of the time that each took, however many ran at once.

    Raises
    ------
    ValueError
        If the name, the data or the device is unknown, a result is not finite, ``jobs`` is less than 1, more than one
        together with ``dask``, either is asked for on a CUDA device, ``distributed`` is missing, or no scheduler
        answers within 5 seconds.
    TypeError
        If a result is no JSON value or ``jobs`` no integer.

    Notes
    -----
    The error of a piece has a note (PEP 678) that names the piece.
    """
    module = _module(name)
    where = _device(device)
    settings = _settings(module, data, where, quick)
    jobs = _workers(jobs, dask, where)
    title = name if settings["data"] == module.SETTINGS["data"] else f"{name}_{tag(settings['data'])}"
    path = None if quick else (unfinished or _places.unfinished()) / f"{title}.json"
    state = _State(path, _identity(module, settings, where))
    units = module.units(settings)
    todo = [(module, unit, settings, where) for unit in units if unit not in state.results]
    with (
        tqdm(total=len(units), initial=len(units) - len(todo), desc=title, unit="piece") as bar,
        closing(_pieces(todo, jobs, dask)) as pieces,
    ):
        _collect(pieces, state, bar)
    results = _summarized(module, {unit: state.results[unit] for unit in units}, settings)
    if quick:
        print(json.dumps(results, indent=1))
        return results
    file = records.save(
        title, settings=_shown(settings), seeds=_seeds(settings), results=results, device=_words(where),
        wall_seconds=state.wall_seconds, folder=folder,
    )  # fmt: skip
    path.unlink()
    _console.show(f"wrote {file} after {state.wall_seconds:.0f} s of work")
    return results


@dataclass(frozen=True)
class _Piece:
    """A piece of work: its results and the seconds it took, or the error that ended it."""

    unit: str
    result: dict[str, Any] | None = None
    seconds: float = 0.0
    error: Exception | None = None


class _State:
    """The finished pieces of a run, on disk after each of them if there is a path."""

    def __init__(self, path: Path | None, identity: dict[str, Any]) -> None:
        self.path, self.identity = path, identity
        self.results: dict[str, Any] = {}
        self.wall_seconds = 0.0
        content = _unfinished(path) if path and path.exists() else {}
        if content.get("identity") == identity:
            self.results, self.wall_seconds = content["results"], content["wall_seconds"]

    def add(self, piece: _Piece) -> None:
        self.results[piece.unit] = piece.result
        self.wall_seconds += piece.seconds
        if self.path:
            content = {"identity": self.identity, "results": self.results, "wall_seconds": self.wall_seconds}
            records.write_json(self.path, content)


def _unfinished(path: Path) -> dict[str, Any]:
    """What is kept of a run that has not ended."""
    try:
        content = json.loads(path.read_text("utf8"))
        return {key: content[key] for key in ("identity", "results", "wall_seconds")}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} holds no finished pieces of a run: delete it, or name another file") from error


def _collect(pieces: Iterator[_Piece], state: _State, bar: tqdm) -> None:
    """Keep every piece as it is finished; the first failure is raised after the last piece."""
    failures = []
    for piece in pieces:
        if piece.error is None:
            state.add(piece)
        else:
            failures.append(piece.error)
            bar.write(f"{piece.unit} failed, the other pieces go on: {piece.error!r}", file=sys.stderr)
        bar.update()
    if failures:
        raise failures[0]


# --- who measures -------------------------------------------------------------------------------------------

_Task = tuple[ModuleType, str, Mapping[str, Any], torch.device]


def _workers(jobs: int, dask: str | None, device: torch.device) -> int:
    jobs = _validate.integer("jobs", jobs, low=1)
    if jobs > 1 and dask is not None:
        raise ValueError(f"jobs = {jobs}: expected 1 with dask = {dask!r}, whose workers are the processes")
    if device.type == "cuda" and (jobs > 1 or dask is not None):
        asked, expected = (f"jobs = {jobs}", "1") if dask is None else (f"dask = {dask!r}", "none")
        raise ValueError(f"{asked}: expected {expected} on a CUDA device; device = 'cpu' takes several processes")
    return jobs


def _pieces(tasks: Sequence[_Task], jobs: int, dask: str | None) -> Iterator[_Piece]:
    """The pieces as they are finished."""
    if dask is not None:
        return _on_cluster(tasks, dask)
    return _in_processes(tasks, min(jobs, len(tasks))) if min(jobs, len(tasks)) > 1 else _here(tasks)


def _here(tasks: Sequence[_Task]) -> Iterator[_Piece]:
    with _one_thread():
        for task in tasks:
            yield _piece(*task)


def _in_processes(tasks: Sequence[_Task], jobs: int) -> Iterator[_Piece]:
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=1):
        run = Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
    yield from run(delayed(_apart)(*task) for task in tasks)


def _on_cluster(tasks: Sequence[_Task], address: str) -> Iterator[_Piece]:
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        need = "expected the package distributed to be there: pip install distributed"
        raise ValueError(f"dask = {address!r}: {need}") from error
    try:
        client = Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"dask = {address!r}: expected the address of a running scheduler ({error})") from error
    with client:
        keys = [f"{unit} {uuid.uuid4()}" for _, unit, _, _ in tasks]  # the name is in what Dask says of lost workers
        futures = [client.submit(_apart, *task, key=key) for task, key in zip(tasks, keys, strict=True)]
        for future in as_completed(futures, loop=client.loop):
            yield future.result()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads would cut sums into parts, as many as there are cores, and round them otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _apart(*task: Any) -> _Piece:
    """A piece in a process that does nothing else; its error comes back with the traceback as a note."""
    torch.set_num_threads(1)
    try:
        return _piece(*task)
    except Exception as error:
        error.add_note(traceback.format_exc())
        return _Piece(task[1], error=error)


def _piece(module: ModuleType, unit: str, settings: Mapping[str, Any], device: torch.device) -> _Piece:
    start = time.perf_counter()
    try:
        result = _measure(module, unit, settings, device)
    except Exception as error:
        error.add_note(f"in the piece {unit!r}")
        raise
    return _Piece(unit, result, time.perf_counter() - start)


# --- what is measured ---------------------------------------------------------------------------------------


def _module(name: str) -> ModuleType:
    _validate.choice("name", name, experiments.NAMES)
    return importlib.import_module(f"implicitreg.experiments.{name}")


def _settings(module: ModuleType, data: str | None, device: torch.device, quick: bool) -> dict[str, Any]:
    data = module.SETTINGS["data"] if data is None else data
    there = getattr(module, "FOR_DEVICE", {}).get(device.type, {})
    changes = getattr(module, "FOR_DATA", {}).get(tag(data), {})
    return {**module.SETTINGS, **there, **changes, **(module.QUICK if quick else {}), "data": data}


def _device(device: str) -> torch.device:
    _validate.choice("device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda': expected 'cpu' or 'auto', since torch sees no CUDA device")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _words(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _identity(module: ModuleType, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    files = dict.fromkeys([module.__file__, module.measure.__code__.co_filename])  # several modules can share it
    source = hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()
    return {"settings": json.loads(json.dumps(settings)), "device": _words(device), "source": source}


def _measure(module: ModuleType, unit: str, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    result = module.measure(unit, settings, device)
    try:
        return json.loads(json.dumps(result, allow_nan=False))
    except ValueError as error:
        raise ValueError(f"{unit}: a result is not finite: expected finite numbers ({error})") from error
    except TypeError as error:
        raise TypeError(f"{unit}: a result is no JSON value ({error})") from error


def _summarized(module: ModuleType, results: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**results, "summary": module.summary(results, settings)} if hasattr(module, "summary") else results


def _shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for the record, in which a file of the reader's has no folders."""
    kind, colon, path = settings["data"].partition(":")
    return {**settings, "data": kind + colon + PurePath(path).name}


def _seeds(settings: Mapping[str, Any]) -> list[int]:
    held = [value for key, value in settings.items() if key.endswith(("seed", "seeds"))]
    return sorted({s for value in held for s in (value if isinstance(value, list | tuple) else [value])})
