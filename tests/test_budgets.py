"""Runs whose length a caller chooses: far too many steps are refused by name, at once, before anything is computed."""

import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, training
from implicitreg.diagrams import corollaries, landscapes
from implicitreg.ensembles import particles
from implicitreg.flow import diagonal, factorization, geometry, homogeneous, maxmargin
from implicitreg.gap import one_data_set, onestep, training_sets
from implicitreg.noise import cumulants, escape, leastsquares, msgd, replicas, sampling
from torch import nn

MANY = 10**30
X, Y, LABELS = np.array([[1.0, 2.0], [0.5, 1.0]]), np.array([1.0, 0.5]), np.array([1.0, 1.0])
TOY = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
QUADRATIC = particles.Landscape(
    lambda theta, x, p: (theta[0] + x[0],), [1.0], particles.gaussian(),
    lambda theta, p: (theta[0],), lambda theta, w, p: (w[0],),
)  # fmt: skip
RELU = homogeneous.ReLU(X, LABELS, 2)
RNG = np.random.default_rng(0)
LINEAR, ROWS, TARGETS = (
    nn.Linear(2, 2, dtype=torch.float64),
    torch.ones(4, 2, dtype=torch.float64),
    torch.zeros(4).long(),
)

REFUSED = {
    "minimum trace's factors": ("N", lambda: factorization.balanced_factors(X, 10**8)),
    "wide factors": ("N", lambda: factorization.balanced_factors(np.eye(100), 10**5)),
    "steps of Runge and Kutta": ("h = 1e-09", lambda: homogeneous.gradient_flow(RELU, np.ones(6), [1.0], h=1e-9)),
    "steps so small that none fits": ("h = .*-321", lambda: homogeneous.gradient_flow(RELU, np.ones(6), [1.0], 1e-320)),
    "gradient descent, diagonal": ("k", lambda: diagonal.gradient_descent(X, Y, 0.1, MANY, 0.1)),
    "mirror descent, diagonal": ("k", lambda: diagonal.mirror_descent(X, Y, 0.1, MANY, 0.1)),
    "gradient descent, margin": ("k", lambda: maxmargin.gradient_descent(X, LABELS, 0.1, [3, MANY])),
    "normalised descent": ("k", lambda: maxmargin.normalized_gradient_descent(X, LABELS, 0.1, MANY)),
    "momentum": ("k", lambda: maxmargin.momentum_gradient_descent(X, LABELS, MANY)),
    "steepest descent": ("k", lambda: geometry.steepest_descent(X, LABELS, 1, 0.1, MANY)),
    "mirror descent": ("k", lambda: geometry.mirror_descent(X, Y, geometry.quadratic(), 0.1, MANY, [0, 0])),
    "many steps on much data": ("k", lambda: diagonal.gradient_descent(np.ones((1, 10**5)), [1.0], 0.1, 10**6, 0.1)),
    "many steps": ("T", lambda: onestep.many_steps(TOY, 0.1, 5, MANY)),
    "epochs": ("epochs", lambda: one_data_set.data_modified_gd(TOY, 0.1, K=2, epochs=MANY)),
    "derivatives": ("order", lambda: TOY.derivatives(MANY)),
    "ridge": ("T", lambda: corollaries.tune_ridge([[1.0]], [[1.0]], [1.0], [1.0], 0.1, MANY, 5)),
    "atoms": ("m", lambda: landscapes.hermite(MANY)),
    "moments": ("steps", lambda: leastsquares.run_fixed(X, Y, np.zeros((2, 2)), 0.1, MANY, [0, 0])),
    "escapes": ("cap", lambda: escape.times([1.0], particles.gaussian(), 0.0, 1.0, 0.1, MANY, 10, seed=0)),
    "runs": ("runs", lambda: particles.sgd(QUADRATIC, 0.1, 10, MANY, seed=0)),
    "steps of runs": ("T", lambda: particles.sgd(QUADRATIC, 0.1, MANY, 10, seed=0)),
    "steps times runs": ("runs", lambda: particles.sgd(QUADRATIC, 0.1, 10**8, 10**6, seed=0)),
    "substeps": ("substeps", lambda: particles.sde(QUADRATIC, 0.1, 10, 10, substeps=MANY, seed=0)),
    "training points": ("N", lambda: particles.gd(QUADRATIC, 0.1, 10, 10, N=MANY, seed=0)),
    "points": ("N", lambda: particles.points(QUADRATIC, 10, N=MANY, seed=0)),
    "weights": ("size", lambda: sampling.draw("sgd", 10, 2, rng=RNG, size=MANY)),
    "draws with replacement": ("b", lambda: sampling.draw("sgd", 3, 10**12, rng=RNG)),
    "draws with replacement, many times": ("size", lambda: sampling.draw("sgd", 3, 10**6, rng=RNG, size=10**4)),
    "coins": ("b", lambda: sampling.draw("binomial", 3, MANY, rng=RNG)),
    "weights of many examples": ("n", lambda: sampling.draw("gaussian_cov", 10**12, 3, rng=RNG)),
    "covariance of weights": ("n", lambda: sampling.covariance("sgd", 10**6, 3)),
    "covariance of noisy weights": ("n", lambda: sampling.minibatch_covariance(0.1, 10**6, 2, centred=True,
                                                                               replacement=True)),
    "covariance of gradients": ("the rows of G", lambda: sampling.gradient_covariance("sgd", np.ones((10**6, 2)), 1)),
    "third cumulant": ("the rows of G", lambda: cumulants.third_cumulant("sgd", np.ones((5000, 2)), 1)),
    "one minibatch": ("B", lambda: sampling.draw_minibatch(0.1, 10, 10**12, rng=RNG, centred=True, replacement=True)),
    "one minibatch of many": ("n", lambda: sampling.draw_minibatch(0.1, 10**12, 2, rng=RNG, centred=True,
                                                                   replacement=False)),
    "minibatches": ("size", lambda: sampling.draw_minibatch(0.1, 10, 2, rng=RNG, size=MANY, centred=True,
                                                            replacement=True)),
    "training": ("steps", lambda: training.run(LINEAR, (ROWS, TARGETS), weights=lambda t: ([0], [1.0]), eta=0.1,
                                               steps=MANY)),
    "training with noise": ("steps", lambda: msgd.train(LINEAR, (ROWS, TARGETS), kind="gd", b=1, eta=0.1, steps=MANY)),
    "replicas": ("steps", lambda: replicas.train([replicas.Replica("gd", 1, eta=1.0)], [nn.Sequential(LINEAR)],
                                                 ROWS[None], TARGETS[None], steps=MANY)),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_without_an_end_is_refused_by_name(case):
    name, call = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^{name}( = \d+)?: expected at least|^{name} = \d+( of .*)?: expected"):
        call()


def test_a_late_time_of_a_stiff_flow_ends_in_an_error(monkeypatch):
    """X = 1e4 to reach 100: the explicit method takes steps of 1e-6."""
    monkeypatch.setattr(factorization, "_MOST_CALLS", 2_000)
    with pytest.raises(RuntimeError, match=r"t = 10000: 2,000 evaluations .* expected earlier times"):
        factorization.gradient_flow([[[1.0, 0], [0, 0]]], [100.0], [1e4], np.eye(2))


def test_a_flow_that_blows_up_before_the_last_time_ends_in_an_error(monkeypatch):
    """θ' = 3θ²/2 · θ from 1: 1/θ² = 1 - 3t, so that nothing is left after t = 1/3."""
    falling = FiniteProblem([lambda t: -(t[0] ** 4) / 4, lambda t: -(t[0] ** 4) / 2], [0.5, 0.5], [1.0])
    assert one_data_set.fixed_horizon(falling, [0.01, 0.2], v=0.5, a=0.0).theta.ravel() == pytest.approx(
        [0.97**-0.5, 0.4**-0.5], rel=1e-9
    )
    monkeypatch.setattr(one_data_set, "MAX_VELOCITIES", 500)
    for tau in ([0.01, 0.2, 0.5], 1.0):
        with pytest.raises(RuntimeError, match=r"tau = .*; expected earlier times"):
            one_data_set.fixed_horizon(falling, tau, v=0.5, a=0.0)


def test_the_sum_over_pairs_reads_only_the_points_that_are_used():
    """A training set of 10^12 points, of which two batches name three."""
    assert training_sets.pair_sum([1, 1], [[0, 10**11], [5]], 10**12) == pytest.approx(1e-12, rel=1e-12)
    assert training_sets.pair_sum([1, 1], [[0, 7], [7]], 10**12) == pytest.approx(1e-12 - 0.5, rel=1e-12)
