"""Runs an experiment piece by piece, resumes it after an interruption, and leaves a record."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import torch
from implicitreg import _validate, experiments, records
from tqdm import tqdm

UNFINISHED = records.FOLDER.parents[1] / "_build" / "experiments"


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
    kind, _, path = data.partition(":")
    return re.sub(r"[^a-z0-9]+", "_", (PurePath(path).name or kind).split(".")[0].lower()).strip("_")


def run(
    name: str, *, data: str | None = None, device: str = "auto", quick: bool = False,
    folder: Path | None = None, unfinished: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run an experiment and write its record ``NAME.json``, or ``NAME_DATA.json`` for data other than its own.

    Every finished piece of work is kept in a file of its own folder, so that a run that was interrupted goes on where
    it stopped; pieces made with other settings, on another device or by another version of the experiment's module
    are discarded.

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
        Where the record and the pieces go; by default ``book/records`` and ``_build/experiments`` of the repository.

    Returns
    -------
    dict
        The results: one entry a piece, and ``"summary"`` where the experiment has one.

    Raises
    ------
    ValueError
        If the name, the data or the device is unknown, or a result is not finite.
    TypeError
        If a result is no JSON value.
    """
    module = _module(name)
    settings = _settings(module, data, quick)
    where = _device(device)
    if quick:
        results = {unit: _measure(module, unit, settings, where) for unit in tqdm(module.units(settings), desc=name)}
        results = _summarized(module, results, settings)
        print(json.dumps(results, indent=1))
        return results
    title = name if settings["data"] == module.SETTINGS["data"] else f"{name}_{tag(settings['data'])}"
    state = _State((unfinished or UNFINISHED) / f"{title}.json", _identity(module, settings, where))
    for unit in tqdm(module.units(settings), desc=title, unit="piece"):
        state.add(unit, lambda unit=unit: _measure(module, unit, settings, where))
    results = _summarized(module, state.results, settings)
    file = records.save(
        title, settings=_shown(settings), seeds=_seeds(settings), results=results, device=_words(where),
        wall_seconds=state.wall_seconds, folder=folder,
    )  # fmt: skip
    state.path.unlink()
    print(f"wrote {file.name} after {state.wall_seconds:.0f} s of work")
    return results


class _State:
    """The finished pieces of a run, on disk after each of them."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path, self.identity = path, identity
        self.results: dict[str, Any] = {}
        self.wall_seconds = 0.0
        content = json.loads(path.read_text("utf8")) if path.exists() else {}
        if content.get("identity") == identity:
            self.results, self.wall_seconds = content["results"], content["wall_seconds"]

    def add(self, unit: str, measure: Any) -> None:
        if unit in self.results:
            return
        start = time.perf_counter()
        self.results[unit] = measure()
        self.wall_seconds += time.perf_counter() - start
        content = {"identity": self.identity, "results": self.results, "wall_seconds": self.wall_seconds}
        records.write_json(self.path, content)


def _module(name: str) -> ModuleType:
    _validate.choice("name", name, experiments.NAMES)
    return importlib.import_module(f"implicitreg.experiments.{name}")


def _settings(module: ModuleType, data: str | None, quick: bool) -> dict[str, Any]:
    data = module.SETTINGS["data"] if data is None else data
    changes = getattr(module, "FOR_DATA", {}).get(tag(data), {})
    return {**module.SETTINGS, **changes, **(module.QUICK if quick else {}), "data": data}


def _device(device: str) -> torch.device:
    _validate.choice("device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda': expected 'cpu' or 'auto', since torch sees no CUDA device")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _words(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _identity(module: ModuleType, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    source = hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()
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
