"""One look for every figure: colours that survive colour blindness, line styles that survive a grey printer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from implicitreg import _validate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

PALETTE = ("#0b63a5", "#b84a00", "#00795c", "#8e3b8f", "#3c3c3c")
"""Blue, orange, green, purple, ink: each has a contrast of 4.5 or more on the figures' white paper."""

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Line styles in the order of the colours: no two curves of a figure differ by colour alone."""

MUTED = "#8a8f8c"


def use(fmt: str = "svg") -> None:
    """Set the book's figure style; call it once, in the first cell of a chapter.

    Parameters
    ----------
    fmt : {"svg", "png", "retina"}
        The format of figures in a notebook. SVG files come out the same on every run: no date, fixed ids.

    Raises
    ------
    ValueError
        If the format is another one.
    """
    import matplotlib as mpl
    from cycler import cycler

    _validate.choice("fmt", fmt, ("svg", "png", "retina"))
    mpl.rcParams.update({
        "axes.prop_cycle": cycler(color=PALETTE, linestyle=STYLES),
        "axes.axisbelow": True, "axes.grid": True, "axes.spines.right": False, "axes.spines.top": False,
        "axes.titlelocation": "left", "axes.titlesize": 12, "axes.titlepad": 10.0, "axes.labelsize": 11,
        "axes.facecolor": "white", "figure.facecolor": "white", "grid.alpha": 0.25, "grid.linewidth": 0.7,
        "figure.constrained_layout.use": True, "figure.dpi": 100, "figure.figsize": (6.4, 3.6),
        "font.size": 11, "legend.frameon": False, "legend.handlelength": 2.6, "lines.linewidth": 1.9,
        "path.simplify_threshold": 0.1, "savefig.bbox": "tight", "savefig.dpi": 200,
        "svg.fonttype": "path", "svg.hashsalt": "implicitreg",
    })  # fmt: skip
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    set_matplotlib_formats(fmt, **({"metadata": {"Date": None}} if fmt == "svg" else {}))


def interval(samples: Any) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean over the first axis and the half-width of its 95 % interval, :math:`t_{n-1}\,s/\sqrt n`.

    Parameters
    ----------
    samples : array_like, shape (n, ...)
        Independent repetitions, at least two; s uses 1/(n − 1).

    Raises
    ------
    ValueError
        If there are fewer than two.

    Examples
    --------
    >>> mean, half = interval([1.0, 3.0])           # t_1 = 12.706, s = √2
    >>> print(float(mean), round(float(half), 3))
    2.0 12.706
    """
    from scipy.stats import t

    x = _validate._floats("samples", samples)
    if x.ndim == 0 or len(x) < 2:
        raise ValueError(f"samples has shape {x.shape}: expected at least two repetitions")
    return x.mean(axis=0), t.ppf(0.975, len(x) - 1) * x.std(axis=0, ddof=1) / np.sqrt(len(x))


def band(ax: Axes, x: Any, samples: Any, label: str, **style: Any) -> Line2D:
    """The mean of repetitions as a line with its 95 % interval as a band; ``samples`` is ``(n, len(x))``."""
    mean, half = interval(samples)
    (line,) = ax.plot(x, mean, label=label, **style)
    ax.fill_between(x, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
    return line


def valley(ax: Axes, loss: Callable[[np.ndarray], np.ndarray], x: tuple[float, float], y: tuple[float, float]) -> None:
    """Grey contours of a loss over a rectangle of the plane, spaced evenly in its square root.

    ``loss`` maps points ``(..., 2)`` to values ``(...)``; ``x`` and ``y`` are the rectangle's ends.
    """
    u, v = np.meshgrid(np.linspace(*x, 121), np.linspace(*y, 121))
    root = np.sqrt(np.maximum(loss(np.stack([u, v], axis=-1)), 0))
    ax.contour(u, v, root, levels=9, colors=MUTED, linewidths=0.6, linestyles="-", alpha=0.8)
    ax.set(xlim=x, ylim=y, aspect="equal")
    ax.grid(False)


def path(ax: Axes, points: Any, label: str | None = None, **style: Any) -> Line2D:
    """A trajectory in the plane, ``points`` of shape ``(k, 2)``: it starts at an open circle and ends at a full one."""
    p = _validate.matrix("points", points, columns=2)
    (line,) = ax.plot(*p.T, label=label, **style)
    mark = {"color": line.get_color(), "marker": "o", "linestyle": "none", "markersize": 6, "zorder": 5}
    ax.plot(*p[:1].T, markerfacecolor="white", **mark)
    ax.plot(*p[-1:].T, **mark)
    return line
