r"""Isotropic noise 1, 10, 100 and 1000 times as large as SGD's, on four splits of `chosen_noise`.

``python -m implicitreg.experiments._isotropic_size`` takes about a minute and writes the record ``isotropic_size``:
an exercise of the chapter on chosen noise, run once, with sizes and splits that were fixed before. A size is a mean
square: the covariance is :math:`\frac{k \operatorname{tr} C}{p} I` with k the times and C that of SGD's noise at the
current weights. Everything else is the setting ``noisy`` of `chosen_noise`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from implicitreg import records
from implicitreg._torch import torch
from implicitreg.experiments import chosen_noise
from implicitreg.noise import replicas

SETTINGS: dict[str, Any] = {
    **{key: chosen_noise.SETTINGS[key] for key in ("data", "test", "hidden", "noisy")},
    "times": [1, 10, 100, 1000], "seeds": [300, 301, 302, 303],
}  # fmt: skip


def measure(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`chosen_noise.METRICS` of SGD and of each size, a list a seed, along ``"at"``; null where a run has diverged."""
    chosen, seeds = settings["noisy"], settings["seeds"]
    x, y, test, starts = chosen_noise._drawn(chosen, seeds, settings, torch.device("cpu"))

    def curves(kind: str, times: float = 1) -> dict[str, Any]:
        runs = [
            replicas.Replica(kind, chosen["b"], chosen["eta"], seed=seed, data=k, start=k)
            for k, seed in enumerate(seeds)
        ]
        group = replicas._Group(runs, starts, x, y)
        group.b = group.b / times  # the covariance is (F - gg')/b
        with torch.no_grad():
            rows = np.array(list(replicas._run(group, chosen["steps"], chosen["at"], test)))  # (steps, metrics, seeds)
        rows = np.where(np.isfinite(rows[:, :1]), rows, np.nan)
        return {m: chosen_noise._plain(rows[:, k].T) for k, m in enumerate(chosen_noise.METRICS)}

    return {"sgd": curves("sgd")} | {f"{k} times": curves("gld_iso", k) for k in settings["times"]}


def main() -> None:
    """Run it and write its record."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    results = measure(SETTINGS)
    seconds = time.perf_counter() - start
    records.save(
        "isotropic_size", settings=SETTINGS, seeds=SETTINGS["seeds"], results=results, wall_seconds=round(seconds, 2)
    )


if __name__ == "__main__":
    main()
