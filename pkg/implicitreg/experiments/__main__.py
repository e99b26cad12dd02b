"""The command line of the experiments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from implicitreg import _console
from implicitreg.experiments import NAMES

try:
    from implicitreg.experiments import _runner
except ModuleNotFoundError as error:  # torch
    raise SystemExit(f"python -m implicitreg.experiments: {error}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m implicitreg.experiments", description=__doc__)
    parser.add_argument("name", nargs="?", choices=NAMES, metavar="NAME", help="an experiment; without it, a list")
    parser.add_argument("--data", help="digits (default) | mnist | … | folder:PATH | archive:PATH | npz:PATH")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--quick", action="store_true", help="a run of seconds that writes nothing")
    parser.add_argument("--jobs", type=int, default=1, metavar="K", help="measure in K processes (default 1)")
    parser.add_argument("--dask", metavar="ADDRESS", help="measure on the workers of this Dask scheduler")
    options = parser.parse_args(arguments)
    if options.name is None:
        _console.show("\n".join(f"{name:24} {line}" for name, line in _runner.describe().items()))
        return 0
    try:
        _runner.run(
            options.name, data=options.data, device=options.device, quick=options.quick,
            jobs=options.jobs, dask=options.dask,
        )  # fmt: skip
    except ValueError as error:
        where = [f"({note})" for note in getattr(error, "__notes__", [])[:1]]  # the second note is a traceback
        _console.show(" ".join([f"{parser.prog}: {error}", *where]), sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
