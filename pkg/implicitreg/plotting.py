"""One look for every figure: colours that survive colour blindness, line styles that survive a grey printer.

Figures are drawn on white. A notebook stores each as SVG (for the site and for a trusted notebook) and as a small PNG
(for one that is not trusted); on the site the page's paper takes the place of the white, by day and by night.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from implicitreg import _validate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["MUTED", "PALETTE", "STYLES", "band", "frames", "interval", "panels", "path", "png", "svg", "use", "valley"]

PALETTE = ("#0b63a5", "#b84a00", "#00795c", "#8e3b8f", "#3c3c3c")
"""Blue, orange, green, purple, ink: each has a contrast of 4.5 or more on the figures' white paper."""

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Line styles in the order of the colours: no two curves of a figure differ by colour alone."""

MUTED = "#6f7572"
"""For what stands in the background; 4.5 on white as well."""

_INCH = 96  # CSS pixels


def use() -> None:
    """Set the book's figure style; call it once, in the first cell of a chapter.

    It starts from Matplotlib's defaults, whatever a ``matplotlibrc`` says. In a notebook it turns on the inline
    backend, whatever ``MPLBACKEND`` says, and has each figure stored as SVG and as PNG. Both come out the same on
    every run: no date, fixed ids.
    """
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcdefaults()
    mpl.rcParams.update({
        "axes.prop_cycle": cycler(color=PALETTE, linestyle=STYLES),
        "axes.axisbelow": True, "axes.grid": True, "axes.spines.right": False, "axes.spines.top": False,
        "axes.titlelocation": "left", "axes.titlesize": 12, "axes.titlepad": 9.0, "axes.labelsize": 12,
        "axes.facecolor": "white", "figure.facecolor": "white", "savefig.facecolor": "white",
        "grid.alpha": 0.25, "grid.linewidth": 0.7,
        "figure.constrained_layout.use": True, "figure.dpi": _INCH, "figure.figsize": (6.0, 3.6),
        "font.size": 12, "legend.fontsize": 12, "legend.frameon": False, "legend.handlelength": 2.4,
        "lines.linewidth": 1.9, "path.simplify_threshold": 0.1, "savefig.dpi": 200,
        "svg.fonttype": "path", "svg.hashsalt": "implicitreg",
    })  # fmt: skip
    _store_figures_twice()


def _store_figures_twice() -> None:
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return
    from matplotlib.figure import Figure

    shell.run_line_magic("matplotlib", "inline")  # before the formatters, which it resets
    formatters = shell.display_formatter.formatters
    for kind in ("image/jpeg", "application/pdf"):
        formatters[kind].type_printers.pop(Figure, None)
    formatters["image/svg+xml"].for_type(Figure, svg)
    formatters["image/png"].for_type(Figure, png)


def svg(fig: Figure) -> str:
    """The figure as SVG text, without what a browser does not need; coordinates to a tenth of a point."""
    _figure(fig)
    file = io.StringIO()
    fig.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", file.getvalue(), flags=re.S)
    tenth = lambda m: f"{float(m[0]):.1f}".removesuffix(".0")  # noqa: E731
    text = re.sub(r' d="[^"]*"', lambda m: re.sub(r"-?\d+\.\d+", tenth, m[0]), text)
    return re.sub(r"\s+", " ", text).replace("> <", "><").strip()


def png(fig: Figure) -> tuple[bytes, dict[str, int]]:
    """The figure as PNG at twice its size, in 64 colours, and the size at which it is to be shown."""
    from PIL import Image

    _figure(fig)
    raw, small = io.BytesIO(), io.BytesIO()
    fig.savefig(raw, format="png", dpi=2 * _INCH)
    image = Image.open(raw).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue(), {"width": image.width // 2, "height": image.height // 2}


def _figure(fig: Figure) -> None:
    from matplotlib.figure import Figure

    _validate.instance("fig", fig, Figure)


def _axes(ax: Axes) -> None:
    from matplotlib.axes import Axes

    _validate.instance("ax", ax, Axes)


def _size(figsize: tuple[float, float]) -> tuple[float, float]:
    """Inches of a figure, which its pixels limit."""
    sides = _validate.vector("figsize", figsize, size=2)
    if sides.min() < 0.1 or sides.max() > 100:
        raise ValueError(f"figsize = {figsize!r}: expected two lengths of 0.1 to 100 inches")
    return tuple(sides.tolist())


def panels(n: int, figsize: tuple[float, float] = (4.4, 3.4)) -> list[Axes]:
    """Axes of n figures that belong together, marked (a), (b), …: side by side on a wide screen, stacked on a phone.

    Draw them all in one cell and give the cell the tag ``panels``.

    Parameters
    ----------
    n : int
        How many, 2 to 6.
    figsize : tuple of float
        Width and height of each, in inches.

    Raises
    ------
    ValueError
        If there are fewer or more.
    """
    import matplotlib.pyplot as plt

    n, figsize = _validate.integer("n", n, low=2, high=6), _size(figsize)
    axes = [plt.subplots(figsize=figsize)[1] for _ in range(n)]
    _mark(axes)
    return axes


def _mark(axes: Sequence[Axes]) -> None:
    """(a), (b), … at the upper left corners."""
    for letter, ax in zip("abcdef", axes, strict=False):
        ax.annotate(f"({letter})", (0, 1), (-6, 9), xycoords="axes fraction", textcoords="offset points",
                    ha="right", weight="bold")  # fmt: skip


def frames(
    draw: Callable[..., None],
    values: Sequence[Any],
    labels: Sequence[str],
    alts: Sequence[str],
    *,
    title: str,
    chosen: int = 0,
    panels: int = 1,
    figsize: tuple[float, float] | None = None,
) -> None:
    """A row of choices, each with a picture of its own: the reader moves through them with the arrow keys.

    Radio buttons and a style sheet in the cell's output: no server, no script. In a notebook that is not trusted, and
    in print, the chosen frame alone is shown.

    Parameters
    ----------
    draw : callable
        ``draw(ax, value)`` draws one frame; with several panels ``draw(ax1, ax2, …, value)``. It should fix its limits,
        or the picture jumps.
    values : sequence
        What is drawn, one a frame.
    labels : sequence of str
        Short words under the buttons: all of them stand in one row.
    alts : sequence of str
        What each frame shows, for a reader who does not see it.
    title : str
        What the buttons choose, such as "Scale of the start, α".
    chosen : int
        The frame that is shown first.
    panels : int
        Axes a frame; they stack on a phone.
    figsize : tuple of float, optional
        Size of each panel, in inches; by default (6, 3.4) for one panel and (4.4, 3.4) for several.

    Raises
    ------
    ValueError
        If there is no frame, the lists differ in length, a label or text is empty, or there is no frame ``chosen``.
    ModuleNotFoundError
        Without IPython, which every notebook has.
    """
    import matplotlib.pyplot as plt

    rows = _frame_rows(values, labels, alts, title, chosen)
    count = _validate.integer("panels", panels, low=1, high=4)
    _validate.function("draw", draw, count + 1)
    size = _size(figsize) if figsize is not None else (6.0, 3.4) if count == 1 else (4.4, 3.4)
    chosen = int(chosen)
    name = "f" + hashlib.sha256("\0".join([title, *(row[1] for row in rows)]).encode()).hexdigest()[:8]
    parts = []
    for k, (value, label, alt) in enumerate(rows):
        drawn = [plt.subplots(figsize=size) for _ in range(count)]
        if count > 1:
            _mark([ax for _, ax in drawn])
        draw(*(ax for _, ax in drawn), value)
        wide = f' style="max-width:{round(_INCH * size[0])}px"'
        pictures = "".join(f'<img alt=""{wide} src="{_uri(svg(fig))}">' for fig, _ in drawn)
        for fig, _ in drawn:
            plt.close(fig)
        parts.append(
            f'<label><input{_HIDDEN} data-lm-suppress-shortcuts="true" type="radio" name="{name}"'
            f'{" checked" * (k == chosen)}><span class="tick"{_HIDDEN}>{escape(label)}</span>'
            f'<span class="view"{_HIDDEN * (k != chosen)} role="img" aria-label="{escape(alt)}">'
            f"{pictures}</span></label>"
        )
    box = f'<fieldset class="frames" style="grid-template-columns:repeat({len(rows)},1fr)">'
    labels, alts = [row[1] for row in rows], [row[2] for row in rows]
    html = f"<style>{_FRAMES}</style>{box}<legend>{escape(title)}</legend>{''.join(parts)}</fieldset>"
    _display()({"text/html": html, "text/plain": f"{title}: {labels[chosen]}. {alts[chosen]}"}, raw=True)


def _display() -> Callable[..., None]:
    try:
        from IPython.display import display
    except ModuleNotFoundError as error:
        message = "frames are shown in a notebook, by IPython: pip install ipython"
        raise ModuleNotFoundError(message, name=error.name) from error
    return display


def _frame_rows(values: Any, labels: Any, alts: Any, title: Any, chosen: Any) -> list[tuple[Any, str, str]]:
    values = list(values) if isinstance(values, Mapping) else _validate.items("values", values)
    labels, alts = _validate.items("labels", labels), _validate.items("alts", alts)
    for name, words in (("labels", labels), ("alts", alts), ("title", [title])):
        if name != "title" and len(words) != len(values):
            raise ValueError(f"{name} has {len(words)} entries: expected {len(values)}, one a frame")
        for word in words:
            if not (isinstance(word, str) and word.strip()):
                raise ValueError(f"{name} has {word!r}: expected words")
    _validate.integer("chosen", chosen, low=0, high=len(values) - 1)
    return list(zip(values, labels, alts, strict=True))


def _uri(text: str) -> str:
    return "data:image/svg+xml," + quote(text.replace('"', "'"), safe=" =:/;,'()-._~+")


_HIDDEN = ' style="display:none"'
_FRAMES = (
    ".frames{display:grid;justify-items:center;border:0;margin:0;padding:0;min-width:0;max-width:46rem}"
    ".frames legend{font-size:.9em;font-weight:600;float:none;width:auto;margin:0 auto .2rem;padding:0}"
    ".frames label{display:contents;cursor:pointer}"
    ".frames input{display:block!important;grid-row:1;margin:.3rem 0;accent-color:#0f766e;width:1.15rem;height:1.15rem}"
    ".frames .tick{display:block!important;grid-row:2;font-size:.78em;text-align:center}"
    ".frames input:checked~.tick{font-weight:700}"
    ".frames .view{display:none!important;grid-row:3;grid-column:1/-1;width:100%;margin-top:.4rem}"
    ".frames input:checked~.view{display:flex!important;flex-wrap:wrap;justify-content:center}"
    ".frames img{flex:1 1 18rem;min-width:0;width:100%;height:auto}"
    "@media print{.frames input,.frames input:not(:checked)~.tick{display:none!important}}"
)


@_validate.in_range
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
    _axes(ax)
    _validate.text("label", label)
    mean, half = interval(samples)
    if mean.ndim != 1 or mean.size == 0:
        raise ValueError(f"samples has shape {np.shape(samples)}: expected (n, len(x))")
    x = _validate.vector("x", x, size=mean.size)
    (line,) = ax.plot(x, mean, label=label, **style)
    ax.fill_between(x, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
    return line


def valley(ax: Axes, loss: Callable[[np.ndarray], np.ndarray], x: tuple[float, float], y: tuple[float, float]) -> None:
    """Grey contours of a loss over a rectangle of the plane, spaced evenly in its square root.

    ``loss`` maps points ``(..., 2)`` to values ``(...)``; ``x`` and ``y`` are the rectangle's ends.
    """
    _axes(ax)
    x, y = (_validate.vector(name, ends, size=2) for name, ends in (("x", x), ("y", y)))
    u, v = np.meshgrid(np.linspace(*x, 121), np.linspace(*y, 121))
    values = _validate.function("loss", loss, 1)(np.stack([u, v], axis=-1))
    root = np.sqrt(np.maximum(_validate.matrix("loss(points)", values, rows=121, columns=121), 0))
    ax.contour(u, v, root, levels=9, colors=MUTED, linewidths=0.6, linestyles="-", alpha=0.8)
    ax.set(xlim=x, ylim=y, aspect="equal")
    ax.grid(False)


def path(ax: Axes, points: Any, label: str | None = None, **style: Any) -> Line2D:
    """A trajectory in the plane, ``points`` of shape ``(k, 2)``: it starts at an open circle and ends at a full one."""
    _axes(ax)
    p = _validate.matrix("points", points, columns=2)
    label = label if label is None else _validate.text("label", label)
    (line,) = ax.plot(*p.T, label=label, **style)
    mark = {"color": line.get_color(), "marker": "o", "linestyle": "none", "markersize": 6, "zorder": 5}
    ax.plot(*p[:1].T, markerfacecolor="white", **mark)
    ax.plot(*p[-1:].T, **mark)
    return line
