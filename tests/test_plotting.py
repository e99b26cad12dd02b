"""The figures' look: contrast, colour blindness, reproducible files."""

import io
import itertools
import re

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt
from implicitreg import plotting
from PIL import Image
from scipy.stats import t


def linear(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def luminance(rgb):
    return float(rgb @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("colour", [*plotting.PALETTE, plotting.MUTED])
def test_contrast_on_white_is_at_least_four_and_a_half(colour):
    assert 1.05 / (luminance(linear(colour)) + 0.05) >= 4.5


# Machado, Oliveira, Fernandes (2009), severity 1
DEFICIENT = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("kind", DEFICIENT)
def test_first_three_colours_stay_apart_for_colour_blind_readers(kind):
    seen = [np.clip(np.array(DEFICIENT[kind]) @ linear(c), 0, 1) ** (1 / 2.4) for c in plotting.PALETTE[:3]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.15


def test_no_two_curves_differ_by_colour_alone():
    assert len(set(map(str, plotting.STYLES))) == len(plotting.PALETTE)


def test_figures_come_out_the_same_twice():
    plotting.use()

    def draw():
        fig, ax = plt.subplots()
        plotting.valley(ax, lambda w: w[..., 0] ** 2, (-1, 1), (-1, 1))
        plotting.path(ax, [[0, 0], [0.5, 0.5]], label="path")
        plotting.band(ax, [0, 1], np.random.default_rng(0).normal(size=(5, 2)), "band")
        out = io.BytesIO()
        fig.savefig(out, format="svg", metadata={"Date": None})
        plt.close(fig)
        return out.getvalue()

    assert draw() == draw()


def test_interval_covers_at_its_level():
    x = np.random.default_rng(1).normal(size=(8, 20_000))
    mean, half = plotting.interval(x)
    covered = (np.abs(mean) <= half).mean()
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 20_000)
    normal = half * 1.96 / t.ppf(0.975, 7)
    assert (np.abs(mean) <= normal).mean() < 0.93  # a normal quantile on eight repetitions is too narrow


@pytest.mark.parametrize("samples", [[], 3.0, [1.0], [np.nan, 1.0]])
def test_interval_refuses(samples):
    with pytest.raises(ValueError, match="samples"):
        plotting.interval(samples)


def test_style_starts_from_the_defaults():
    mpl.rcParams.update({"lines.marker": "o", "axes.labelcolor": "white", "text.usetex": True})
    plotting.use()
    assert mpl.rcParams["lines.marker"] == "None"
    assert mpl.rcParams["axes.labelcolor"] == "black"
    assert not mpl.rcParams["text.usetex"]


def line(*axes_and_value):
    *axes, value = axes_and_value
    for ax in axes:
        ax.plot([0, 1], [0, value])


def shown(monkeypatch, *arguments, **options):
    out = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: out.append(data))
    plotting.use()
    plotting.frames(*arguments, **options)
    assert not plt.get_fignums(), "figures left open would be shown a second time"
    return out[0]


def test_frames_are_radio_buttons_with_a_picture_each(monkeypatch):
    alts = ["A flat line.", "A steep <line>."]
    data = shown(monkeypatch, line, [0.1, 2.0], ["flat", "steep"], alts, title="Slope", chosen=1)
    html = data["text/html"]
    assert data["text/plain"] == "Slope: steep. A steep <line>."
    assert html.count('type="radio"') == html.count('role="img"') == html.count("data:image/svg+xml,") == 2
    assert html.count(" checked") == 1
    assert html.index(" checked") > html.index("flat")
    assert 'aria-label="A steep &lt;line&gt;."' in html
    assert "<legend>Slope</legend>" in html
    assert "<script" not in html
    assert html.count('data-lm-suppress-shortcuts="true"') == 2
    assert html == shown(monkeypatch, line, [0.1, 2.0], ["flat", "steep"], alts, title="Slope", chosen=1)["text/html"]


def test_frames_of_two_panels(monkeypatch):
    data = shown(monkeypatch, line, [1], ["one"], ["Two lines."], title="Two", panels=2)
    assert data["text/html"].count("<img") == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"values": []}, "values is empty"),
        ({"labels": ["a"]}, "labels has 1 entries: expected 2"),
        ({"alts": ["a", ""]}, "alts has '': expected words"),
        ({"labels": ["a", 1]}, "labels has 1: expected words"),
        ({"title": " "}, "title has ' ': expected words"),
        ({"chosen": 2}, "chosen = 2: expected an integer >= 0 and <= 1"),
        ({"panels": 5}, "panels = 5: expected an integer >= 1 and <= 4"),
    ],
)
def test_frames_refuse(changed, words):
    given = {"values": [1, 2], "labels": ["a", "b"], "alts": ["A.", "B."], "title": "T", **changed}
    positional = [given.pop(k) for k in ("values", "labels", "alts")]
    with pytest.raises(ValueError, match=words):
        plotting.frames(line, *positional, **given)


def test_panels_are_figures_of_their_own():
    plotting.use()
    a, b = plotting.panels(2)
    assert a.figure is not b.figure
    assert [t.get_text() for ax in (a, b) for t in ax.texts] == ["(a)", "(b)"]
    plt.close("all")
    for n in (1, 7):
        with pytest.raises(ValueError, match=f"n = {n}: expected an integer >= 2 and <= 6"):
            plotting.panels(n)


def test_svg_is_short_and_png_is_twice_the_size():
    plotting.use()
    fig, ax = plt.subplots(figsize=(4.0, 3.0))
    ax.plot([0, 1 / 3])
    text, (picture, size) = plotting.svg(fig), plotting.png(fig)
    plt.close(fig)
    assert text.startswith("<svg")
    assert "<metadata" not in text
    assert not re.search(r' d="[^"]*\d\.\d\d', text)
    assert size == {"width": 384, "height": 288}
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (768, 576)
        assert len(image.convert("RGB").getcolors()) <= 64


def test_path_refuses_points_outside_the_plane():
    with pytest.raises(ValueError, match=r"points has shape \(1, 3\): expected \(1, 2\)"):
        plotting.path(plt.figure().add_subplot(), [[1, 2, 3]])
