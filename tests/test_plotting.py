"""The figures' look: contrast, colour blindness, reproducible files."""

import io
import itertools

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt
from implicitreg import plotting
from scipy.stats import t


def linear(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def luminance(rgb):
    return float(rgb @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("colour", plotting.PALETTE)
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


def test_unknown_format_is_refused():
    with pytest.raises(ValueError, match="fmt = 'gif': expected one of 'svg', 'png', 'retina'"):
        plotting.use("gif")


def test_path_refuses_points_outside_the_plane():
    with pytest.raises(ValueError, match=r"points has shape \(1, 3\): expected \(1, 2\)"):
        plotting.path(plt.figure().add_subplot(), [[1, 2, 3]])
