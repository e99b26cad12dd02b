"""Two calls in turns, in CPU time on one thread, over several seeds of data; the table and the record of what came out.

A ratio is the peer's time over ours: above one, ours is faster. Time is the CPU time of the process, all its threads
together, so that neither other work on the machine nor a second thread of a peer enters; on a GPU it is wall time, and
the calls wait until the device has finished.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from implicitreg import records
from threadpoolctl import threadpool_limits

SAMPLE = 0.004  # s: shorter calls are repeated within one sample
ROUNDS = 15  # at most so many samples of each
CAP = 20.0  # s: a peer slower than this is left out
LIBRARIES = "clarabel", "cvxpy", "diffrax", "jax", "torchdiffeq"
CLOCKS = {"CPU time of the process": time.process_time, "wall time": time.perf_counter}
CPU, WALL = CLOCKS


class Unusable(Exception):
    """A peer that cannot do a problem: the message says why."""


@dataclass(frozen=True)
class Goal:
    """What is wanted: the least ``ratio``, the largest ``error`` of ours, the least ``gain`` (peer's error / ours)."""

    text: str
    ratio: float = 0.0
    error: float = math.inf
    gain: float = 0.0

    def reached(self, row: Row) -> bool:
        gained = self.gain == 0 or (row.peer_error or 0.0) >= self.gain * row.ours_error
        return row.ratio >= self.ratio and row.ours_error <= self.error and gained


@dataclass(frozen=True)
class Task:
    """A problem with the data of one seed. A peer returns what ours does, or None where it has no error to measure."""

    ours: Callable[[], Any]
    peers: Mapping[str, Callable[[], Any]]
    error: Callable[[Any], float]


@dataclass(frozen=True)
class Case:
    """A problem: how to make it from a seed, and the goals, by peer."""

    group: str
    problem: str
    make: Callable[[int], Task]
    goals: Mapping[str, Goal]


@dataclass(frozen=True)
class Row:
    """Ours against one peer: median times (ms) over the seeds, the ratio of every seed, the largest errors."""

    group: str
    problem: str
    peer: str
    ours_ms: float
    peer_ms: float
    ratios: list[float]
    ours_error: float
    peer_error: float | None
    goal: Goal | None

    @property
    def ratio(self) -> float:
        return float(np.median(self.ratios))

    @property
    def reached(self) -> bool | None:
        return self.goal.reached(self) if self.goal else None

    def plain(self) -> dict[str, Any]:
        """For the record."""
        goal = self.goal.text if self.goal else None
        return asdict(self) | {"goal": goal, "ratio": self.ratio, "reached": self.reached}


def _sample(call: Callable[[], Any], now: Callable[[], float]) -> float:
    """Seconds a call."""
    start, calls, spent = now(), 0, 0.0
    while spent < SAMPLE:
        call()
        calls += 1
        spent = now() - start
    return spent / calls


def in_turns(ours: Callable[[], Any], peer: Callable[[], Any], budget: float, clock: str = CPU) -> np.ndarray:
    """Samples of ours and of the peer (rounds, 2), in turns, until the budget (s) is spent; at least one round."""
    now = CLOCKS[clock]
    start, samples = now(), []
    while not samples or (len(samples) < ROUNDS and now() - start < budget):
        samples.append((_sample(ours, now), _sample(peer, now)))
    return np.array(samples)


def _first_answer(peer: Callable[[], Any]) -> Any:
    """The peer's answer; what it imports and compiles is then out of the way."""
    start = time.process_time()
    try:
        answer = peer()
    except ImportError as error:
        raise Unusable(f"{error.name} is not installed") from error
    if (seconds := time.process_time() - start) > CAP:
        raise Unusable(f"one call takes {seconds:.0f} s")
    return answer


def compare(case: Case, name: str, tasks: Iterable[Task], budget: float, clock: str = CPU) -> Row:
    """Ours against one peer, on the tasks of all seeds."""
    times, ratios, ours_errors, peer_errors = [], [], [], []
    for task in tasks:
        answer = _first_answer(task.peers[name])
        samples = in_turns(task.ours, task.peers[name], budget, clock)
        times.append(1e3 * np.median(samples, axis=0))
        ratios.append(float(np.median(samples[:, 1] / samples[:, 0])))
        ours_errors.append(task.error(task.ours()))
        peer_errors += [] if answer is None else [task.error(answer)]
    ours_ms, peer_ms = np.median(times, axis=0)
    return Row(case.group, case.problem, name, float(ours_ms), float(peer_ms), ratios, max(ours_errors),
               max(peer_errors, default=None), case.goals.get(name))  # fmt: skip


def run(cases: Iterable[Case], seeds: Iterable[int], budget: float, clock: str = CPU) -> tuple[list[Row], list[str]]:
    """All rows, and a line for every peer that was left out; both are printed as they come."""
    rows, skipped = [], []
    print(HEAD)
    with threadpool_limits(1):
        for case in cases:
            tasks = [case.make(seed) for seed in seeds]
            for name in tasks[0].peers:
                try:
                    rows.append(compare(case, name, tasks, budget, clock))
                    print(line(rows[-1]), flush=True)
                except Unusable as reason:
                    skipped.append(f"{case.problem}: {name} left out, {reason}")
                    print(skipped[-1], flush=True)
    return rows, skipped


HEAD = (
    f"{'problem':38} {'ours ms':>8}  {'peer':38} {'peer ms':>8}  {'ratio':>6} {'min..max':>13}  "
    f"{'our err':>7} {'its err':>7}  goal"
)


def line(row: Row) -> str:
    """One row of the table."""
    spread = f"{min(row.ratios):.3g}..{max(row.ratios):.3g}"
    error = "" if row.peer_error is None else f"{row.peer_error:.0e}"
    goal = f"{row.goal.text}: {'reached' if row.reached else 'MISSED'}" if row.goal else ""
    return (
        f"{row.problem:38} {row.ours_ms:8.3g}  {row.peer:38} {row.peer_ms:8.3g}  {row.ratio:6.3g} {spread:>13}  "
        f"{row.ours_error:7.0e} {error:>7}  {goal}"
    )


def machine() -> str:
    """The machine in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf8").splitlines() if info.exists() else []
    names = [text.split(":")[1].strip() for text in lines if text.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.machine()}"


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def save(
    name: str, rows: list[Row], skipped: list[str], seeds: list[int], wall_seconds: float,
    libraries: Iterable[str] = LIBRARIES, clock: str = CPU, device: str = "cpu",
) -> Path:  # fmt: skip
    """The record ``book/records/NAME.json``."""
    settings = {"machine": machine(), "threads": 1, "clock": clock,
                "peers": {library: _version(library) for library in libraries}}  # fmt: skip
    results = {"rows": [row.plain() for row in rows], "skipped": skipped}
    return records.save(name, settings=settings, seeds=seeds, results=results, wall_seconds=wall_seconds, device=device)
