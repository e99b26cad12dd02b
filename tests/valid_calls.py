"""A right call of every public function, class and method: its name, and how its arguments are made.

`public` finds the names by walking the package. What is exempt stands here, with the reason.
"""

import importlib
import inspect
import pkgutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import implicitreg
import matplotlib as mpl
import numpy as np
import torch
from implicitreg import FiniteProblem
from implicitreg.diagrams import Diagram, landscapes, predictions
from implicitreg.ensembles import particles
from implicitreg.flow import geometry, homogeneous, neuron
from implicitreg.gap import precondition
from implicitreg.gap.gaussian import GaussianLinear
from implicitreg.gradstats._sample import entered
from implicitreg.noise import leastsquares, msgd, replicas
from matplotlib.figure import Figure
from torch import nn

mpl.use("agg")

EXEMPT_MODULES = {
    "plain": "makes the book's pages of the book's own files",
    "runbook": "runs the book's own chapters",
    "exercises.": "each holds one dictionary, which `exercises.grade` reads",
    "experiments.": "each is a script, whose settings are its own",
}
"""Modules whose functions are called by the book's tools only; a dot at the end stands for all that is below."""

RESULTS = {
    "diagrams.corollaries.curvature.Overfitting", "diagrams.corollaries.gdc.Regularizer",
    "diagrams.corollaries.ridge.GapPenalty", "diagrams.corollaries.ridge.RidgePath", "diagrams.series.Term",
    "ensembles.Estimate", "ensembles.particles.Ensemble", "exact.ExactRun", "exercises.Verdict",
    "flow.diagonal.DiagonalLimit",
    "flow.diagonal.Factors", "flow.factorization.Completion", "flow.factorization.MinTrace",
    "flow.factorization.RazinCohen", "flow.geometry.NormMargin", "flow.homogeneous.Alignment",
    "flow.homogeneous.Certificate", "flow.homogeneous.KKT", "flow.maxmargin.Asymptotics", "flow.maxmargin.HardMargin",
    "flow.minnorm.StepSizes", "flow.neuron.ReluExample", "gap.one_data_set.FixedHorizon", "gap.one_data_set.TwoNumbers",
    "gap.precondition.LowRank", "gap.onestep.GapAfter", "gap.onestep.Moments", "gap.onestep.OneStepGap",
    "gradstats.results.CurvatureMoments",
    "gradstats.results.GradientMoments", "gradstats.estimators.GramMoments", "ledger.Claim",
    "diagrams.predictions.Coefficients", "noise.cumulants.Cumulants",
    "noise.escape.EscapeTimes", "noise.leastsquares.Constants", "noise.leastsquares.SecondMoments",
    "noise.replicas.Curves", "training.History", "datasets.Dataset",
}  # fmt: skip
"""Classes that hold what the package has computed, and that nobody else makes."""

NO_CALLS = {
    "checks.CheckFailed": "an error", "checks.NotFinite": "an error", "datasets.DataError": "an error",
    "flow.maxmargin.NotSeparable": "an error",
    "flow.homogeneous.Network": "a protocol",
    "gap.precondition.InverseCovariance.add_param_group": "refuses every second group",
    "exercises.Exercise": "made by the modules of exercises only",
}  # fmt: skip


class Words(str):
    """Text that may be any."""

    __slots__ = ()


def half_square(outputs, targets):
    return (outputs[:, 0] - targets) ** 2 / 2


X, Y = np.array([[1.0, 0.5, -0.25], [0.5, -1.0, 0.75]]), np.array([1.0, -0.5])
Z, LABELS = np.array([[1.0, 0.5], [2.0, -0.25], [-0.75, -1.5]]), np.array([1.0, 1.0, -1.0])
W0 = np.array([0.5, -0.25, 0.125])
GRADIENTS = torch.tensor([[2.0, 1, 0], [1.0, 2, 1], [2.0, 0, 2], [3.0, 1, 1], [1.0, 1, -1]], dtype=torch.float64)
TIMES = np.array([0.5, 0.0, 2.0])
A = np.array([[[1.0, 0.5], [0.5, 2.0]], [[0.5, -1.0], [-1.0, 0.25]]])
C2, H2 = np.array([[1.0, 0.25], [0.25, 0.5]]), np.array([[1.0, 0.5], [0.5, 2.0]])
J2 = np.array([[[1.0, 0.5], [0.5, 0.25]], [[0.5, 0.25], [0.25, -1.0]]])


def problem() -> FiniteProblem:
    return FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2 - t[0]], [0.5, 0.5], [1.0])


def linear(outputs: int = 1) -> nn.Module:
    model = nn.Linear(2, outputs, dtype=torch.float64)
    nn.init.constant_(model.weight, 0.5)
    nn.init.constant_(model.bias, 0.25)
    return model


def examples(n: int = 4) -> dict[str, Any]:
    x = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [2.0, -1.0], [0.25, 0.75]], dtype=torch.float64)
    y = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    return {"inputs": x[:n].clone(), "targets": y[:n].clone()}


def on_model(**others: Any) -> dict[str, Any]:
    return {"model": linear(), "loss": half_square, **examples(), **others}


def quadratic() -> particles.Landscape:
    return particles.Landscape(
        lambda theta, x, p: (theta[0] + x[0],), [1.0], particles.gaussian(),
        lambda theta, p: (theta[0],), lambda theta, w, p: (w[0],),
    )  # fmt: skip


def scalars() -> predictions.Scalars:
    return predictions.Scalars(0.5, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1)


def law() -> leastsquares.LeastSquares:
    return leastsquares.LeastSquares([[1.0, 0.5], [-1.0, 1.0], [0.5, 1.0]], [1.0, 0.5, -1.0], [0.5, 0.25, 0.25])


def ensemble(**others: Any) -> dict[str, Any]:
    x = examples()
    return {"model": linear(), "loss": half_square, "thetas": torch.ones(3, 3, dtype=torch.float64),
            "inputs": x["inputs"].expand(3, 4, 2).clone(), "targets": x["targets"].expand(3, 4).clone(),
            **others}  # fmt: skip


@cache
def sample():
    x = examples()
    with entered(linear(), half_square, x["inputs"], x["targets"]) as found:
        return found


def axes() -> Any:
    return Figure().add_subplot()


def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="implicitreg"))


@cache
def recorded() -> Path:
    where = folder()
    implicitreg.records.save("half", settings={}, seeds=[0], results={}, wall_seconds=0.1, folder=where)
    return where


def sequential() -> nn.Sequential:
    return nn.Sequential(linear(2))


def xy(**others: Any) -> dict[str, Any]:
    return {"X": X.copy(), "y": Y.copy(), **others}


def zy(**others: Any) -> dict[str, Any]:
    return {"X": Z.copy(), "y": LABELS.copy(), **others}


THETA = np.array([0.5, 0.25, 1.0, -0.5])
SCHEDULE = {"N": 4, "T": 4, "B": 2}

CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    "checks.check": lambda: {"claim": Words("toy"), "measured": 1.0, "says": Words("one"), "predicted": 1.0,
                             "atol": 1e-9, "wrong": 2.0},
    "checks.rate": lambda: {"x": 2.0 ** np.arange(5), "y": 3.0 * 4.0 ** np.arange(5)},
    "checks.record": lambda: {"claim": Words("toy"), "says": Words("one"), "measured": 0.5, "below": 1.0},
    "checks.say": lambda: {"steps": 26},
    "datasets.load": lambda: {"name": "digits", "split": "all", "limit": 20, "dtype": "float32", "seed": 0},
    # diagrams
    "diagrams.diagram.Diagram": lambda: {"parents": (2, 2), "parts": (0, 0)},
    "diagrams.diagram.Diagram.degree": lambda: {"node": 0},
    "diagrams.diagram.Diagram.count": lambda: {**SCHEDULE, "strict": False},
    "diagrams.diagram.Diagram.coefficient": lambda: {**SCHEDULE, "strict": False},
    "diagrams.diagram.Diagram.value": lambda: {"problem": problem(), "metric": np.array([[2.0]]), "moments": False},
    "diagrams.diagram.Diagram.draw": lambda: {"ax": axes()},
    "diagrams.diagram.Diagram.parse": lambda: {"text": "(01-2)(02-12)"},
    "diagrams.diagram.enumerate_diagrams": lambda: {"edges": 2, "irreducible": True, "path_condition": False,
                                                    "root_tied": False},
    **{f"diagrams.series.{name}_series": lambda: {"problem": problem(), **SCHEDULE, "order": 2,
                                                  "metric": np.array([[2.0]])}
       for name in ("gap", "test_loss", "train_loss", "weights")},
    "diagrams.series.terms": lambda: {"problem": problem(), **SCHEDULE, "order": 2, "metric": np.array([[2.0]]),
                                      "root_tied": False},
    **{f"diagrams.resummed.resummed_{name}": lambda: {"problem": problem(), "eta": 0.25, "T": 3, "max_edges": 2,
                                                      "N": 4} for name in ("test_loss", "weights")},
    "diagrams.resummed.contribution": lambda: {"diagram": Diagram("(01-2)(02-12)"), "problem": problem(), "eta": 0.25,
                                               "T": 3, "N": 4},
    "diagrams.corollaries.valley.displacement": lambda: {"C": C2.copy(), "H": H2.copy(), "J": J2.copy(), "eta": 0.25,
                                                         "T": 3},
    "diagrams.corollaries.valley.velocity": lambda: {"C": np.diag([1.0, 0.0]), "H": np.diag([2.0, 0.0]),
                                                     "J": np.zeros((2, 2, 2)), "eta": 0.25, "exact": True},
    "diagrams.corollaries.reuse.epoch_shift": lambda: {"problem": problem(), "N": 2, "M": 2},
    "diagrams.corollaries.reuse.gd_minus_sgd": lambda: {"problem": problem(), "T": 2, "N": 4},
    "diagrams.corollaries.ridge.gap_penalty": lambda: {"C": C2.copy(), "H": H2.copy(), "lam": 0.5, "eta": 0.25, "T": 3,
                                                       "N": 4},
    "diagrams.corollaries.ridge.tune_ridge": lambda: {"C": C2.copy(), "H": H2.copy(), "minimum": np.array([1.0, -1.0]),
                                                      "noise": np.array([0.25, 0.5]), "eta": 0.25, "T": 5, "N": 4},
    "diagrams.corollaries.gdc.gdc_penalty": lambda: on_model(eta=0.5, chunk_size=2, verify=True),
    "diagrams.corollaries.gdc.half_split_penalty": lambda: on_model(eta=0.5),
    "diagrams.corollaries.gdc.regularizer": lambda: {"problem": problem(), "eta": 0.5, "N": 4,
                                                     "theta": np.array([0.5])},
    "diagrams.corollaries.curvature.overfitting": lambda: {"C": C2.copy(), "H": H2.copy(), "eta": 0.25, "T": 3,
                                                           "N": 4},
    "diagrams.corollaries.curvature.worst_curvature": lambda: {"T": 2, "eta": 0.5},
    **{f"diagrams.corollaries.series.{name}_series": lambda: {"problem": problem(), "T": 2}
       for name in ("ode", "sde", "sgd")},
    **{f"diagrams.corollaries.skew.skew_{name}": lambda: {"H": H2.copy(), "J": J2.copy(), "S": J2.copy(), "eta": 0.25,
                                                          "s": 0.5} for name in ("diagram", "effect")},
    "diagrams.landscapes.CubicChi": dict,
    "diagrams.landscapes.Gauss": dict,
    "diagrams.landscapes.MeanEstimation": lambda: {"H": 2.0, "S": 0.5},
    "diagrams.landscapes.RegularizedMean": lambda: {"H": 1.0, "S": 2.0, "mu": 1.5, "N": 4, "tau": 2.0},
    "diagrams.landscapes.Screw": lambda: {"a": 2.0, "b": 1.0, "sigma": 1.0, "phi": -0.75, "tilt": 0.25},
    **{f"diagrams.landscapes.{name}.{method}": call
       for name, d, k in (("CubicChi", 1, 1), ("Gauss", 1, 1), ("MeanEstimation", 1, 1), ("RegularizedMean", 2, 1),
                          ("Screw", 3, 1))
       for method, call in {
           "loss": lambda d=d: {"thetas": np.full((2, d), 0.5)},
           "gradients": lambda d=d, k=k: {"thetas": np.full((2, d), 0.5), "x": np.full((2, k), 0.25)},
           "covariance": lambda d=d: {"thetas": np.full((2, d), 0.5)},
           "sampled": lambda: {"noise": particles.rademacher()},
           "problem": lambda: {"atoms": np.array([1.0, -1.0]), "probabilities": np.array([0.5, 0.5])},
       }.items()},
    "diagrams.landscapes.Screw.velocity": lambda: {"eta": 0.25, "T": 3},
    "diagrams.landscapes.hermite": lambda: {"m": 3},
    "diagrams.predictions.Coefficients.at": lambda: {"eta": 0.5},
    "diagrams.predictions.Scalars": lambda: dict.fromkeys(predictions.NAMES, 1.0),
    "diagrams.predictions.Scalars.from_draws": lambda: {"draws": np.arange(26.0).reshape(2, 13)},
    "diagrams.predictions.gap_coefficients": lambda: {"scalars": scalars(), **SCHEDULE, "order": 2},
    "diagrams.predictions.test_loss_coefficients": lambda: {"scalars": scalars(), **SCHEDULE, "order": 2},
    "diagrams.networks.exact_scalars": lambda: on_model(chunk_size=2),
    "diagrams.networks.estimated_scalars": lambda: {**on_model(batch=2, chunk_size=2),
                                                    "inputs": examples()["inputs"].repeat(4, 1),
                                                    "targets": examples()["targets"].repeat(4)},
    "diagrams.networks.third_contraction": lambda: on_model(
        directions=torch.tensor([[1.0, 0.5, 0.25], [0.5, -1.0, 0.75]], dtype=torch.float64), chunk_size=2),
    # ensembles
    "ensembles.estimate": lambda: {"draws": np.array([[0.0, 1.0], [2.0, 0.5]])},
    "ensembles.networks.flatten": lambda: {"model": linear()},
    "ensembles.networks.gradients": ensemble,
    "ensembles.networks.losses": ensemble,
    "ensembles.particles.Landscape": lambda: {
        "gradient": lambda theta, x, p: (theta[0] + x[0],), "start": [1.0], "noise": particles.gaussian(),
        "drift": lambda theta, p: (theta[0],), "spread": lambda theta, w, p: (w[0],), "sources": 1,
        "parameters": (0.5,), "project": lambda theta, p: theta, "compiles": False},
    "ensembles.particles.Noise": lambda: {"kind": "atoms", "size": 1, "values": np.array([[1.0], [-1.0]]),
                                          "probabilities": np.array([0.5, 0.5])},
    "ensembles.particles.atoms": lambda: {"values": np.array([2.0, -0.5]), "probabilities": np.array([0.25, 0.75])},
    "ensembles.particles.Ensemble.mean": lambda: {"observable": lambda thetas: thetas[..., 0] ** 2},
    "ensembles.particles.finite": lambda: {"problem": problem()},
    "ensembles.particles.gaussian": lambda: {"size": 2},
    "ensembles.particles.rademacher": lambda: {"size": 2},
    "ensembles.particles.gd": lambda: {"landscape": quadratic(), "eta": 0.25, "T": 2, "runs": 3, "N": 2, "seed": 0},
    "ensembles.particles.points": lambda: {"landscape": quadratic(), "runs": 3, "N": 2, "seed": 0, "first": 1},
    "ensembles.particles.sde": lambda: {"landscape": quadratic(), "eta": 0.25, "T": 2, "runs": 3, "seed": 0,
                                        "substeps": 2, "at": [1, 2], "control": True, "first": 1, "fast": False,
                                        "progress": False},
    "ensembles.particles.sgd": lambda: {"landscape": quadratic(), "eta": 0.25, "T": 2, "runs": 3, "seed": 0,
                                        "N": None, "B": 1, "at": [1, 2], "control": True, "first": 1, "fast": False,
                                        "progress": False},
    "exact.run": lambda: {"problem": problem(), "eta": 0.25, "N": 2, "T": 2, "B": 1, "momentum": 0.5,
                          "reshuffle": True},
    "exercises.check": lambda: {"label": "minnorm-penalty", "answer": 3.0},
    "exercises.grade": lambda: {"label": "minnorm-penalty", "answer": 3.0},
    "exercises.labels": dict,
    "experiments.describe": dict,
    "experiments.population": lambda: {"settings": {"data": "digits"}, "device": torch.device("cpu"), "flat": True},
    "experiments.tag": lambda: {"data": Words("mnist")},
    # flow
    "flow.diagonal.basis_pursuit": lambda: xy(nonnegative=False),
    "flow.diagonal.gradient_descent": lambda: xy(eta=0.125, k=3, alpha=0.5, signed=True),
    "flow.diagonal.mirror_descent": lambda: xy(eta=0.125, k=3, alpha=0.5, signed=True),
    "flow.diagonal.limit": lambda: xy(alpha=0.5, depth=2, signed=True, shape=np.array([1.0, 2.0, 0.5])),
    "flow.diagonal.potential": lambda: {"w": W0.copy(), "alpha": 0.5, "depth": 2, "signed": True},
    "flow.diagonal.potential_gradient": lambda: {"w": W0.copy(), "alpha": 0.5, "depth": 3, "signed": True},
    "flow.diagonal.recovery_exponent": lambda: {"X": np.array([[1.0, 2.0]]), "w": np.array([0.0, 1.0])},
    "flow.diagonal.stochastic_gradient_descent": lambda: xy(eta=0.125, indices=np.array([0, 1, 1]), alpha=0.5,
                                                            signed=True),
    "flow.diagonal.trajectory": lambda: xy(t=TIMES.copy(), alpha=0.5, depth=2, signed=True),
    "flow.diagonal.untied_limit": lambda: xy(u0=np.array([1.0, 0.5, 0.25]), v0=np.array([0.5, 0.5, 1.0])),
    "flow.factorization.balanced_factors": lambda: {"W": H2.copy(), "N": 3},
    "flow.factorization.commuting_limit": lambda: {"A": np.array([np.eye(2), np.diag([1.0, 0.5])]),
                                                   "y": np.array([2.0, 1.5]), "alpha": 0.25},
    "flow.factorization.completion_example": lambda: {"R": 2.0},
    "flow.factorization.deep_gradient_flow": lambda: {"factors": [C2.copy(), H2.copy()], "gradient": lambda W: W - 1,
                                                      "t": TIMES.copy()},
    "flow.factorization.gradient_flow": lambda: {"A": A.copy(), "y": np.array([1.0, 0.25]), "t": TIMES.copy(),
                                                 "U0": C2.copy()},
    "flow.factorization.min_trace": lambda: {"A": A.copy(), "y": np.array([1.0, 0.25])},
    "flow.factorization.razin_cohen": lambda: {"t": TIMES.copy(), "W0": H2.copy()},
    "flow.factorization.singular_value_rates": lambda: {"W": H2.copy(), "gradient": C2.copy(), "N": 3},
    "flow.geometry.Potential": lambda: {"link": np.sinh, "inverse_link": np.arcsinh,
                                        "inverse_link_derivative": lambda theta: 1 / np.sqrt(1 + theta**2)},
    "flow.geometry.entropy": dict,
    "flow.geometry.quadratic": dict,
    "flow.geometry.hypentropy": lambda: {"alpha": 0.5},
    "flow.geometry.power": lambda: {"p": 1.5},
    "flow.geometry.margin": lambda: zy(w=np.array([1.0, 0.5]), p=1.5),
    "flow.geometry.margin_direction": lambda: zy(p=1.5),
    "flow.geometry.mirror_descent": lambda: xy(potential=geometry.quadratic(), eta=0.25, k=3, w0=W0.copy()),
    "flow.geometry.mirror_limit": lambda: xy(potential=geometry.hypentropy(0.5), w0=W0.copy()),
    "flow.geometry.polynomial_direction": lambda: zy(k=1.5),
    "flow.geometry.polynomial_flow": lambda: zy(log_t=np.array([1.0, 0.0, 3.0]), k=1.5, w0=np.array([0.5, 0.25])),
    "flow.geometry.steepest_descent": lambda: zy(p=1.5, eta=0.25, k=3, w0=np.array([0.5, 0.25])),
    "flow.geometry.steepest_step": lambda: {"g": W0.copy(), "p": 1.5},
    "flow.homogeneous.DeepLinear": lambda: zy(hidden=[2]),
    "flow.homogeneous.Diagonal": lambda: zy(depth=2),
    "flow.homogeneous.ReLU": lambda: zy(width=2),
    **{f"flow.homogeneous.{net}.{method}": call
       for net, size in (("DeepLinear", 6), ("Diagonal", 4), ("ReLU", 6))
       for method, call in {
           **{m: lambda size=size: {"theta": np.linspace(-0.5, 0.75, size)} for m in ("q", "layers", "end_to_end")},
           "pullback": lambda size=size: {"theta": np.linspace(-0.5, 0.75, size), "p": np.array([1.0, 0.5, 0.25])},
       }.items() if hasattr(getattr(homogeneous, net), method)},
    "flow.homogeneous.alignment": lambda: {"layers": [C2.copy(), H2.copy()]},
    "flow.homogeneous.layer_imbalance": lambda: {"layers": [C2.copy(), H2.copy()]},
    "flow.homogeneous.deep_linear_margin": lambda: zy(depth=3),
    "flow.homogeneous.gradient_flow": lambda: {"net": homogeneous.Diagonal(Z, LABELS), "theta0": THETA.copy(),
                                               "tau": np.array([0.25, 0.0, 1.0]), "h": 0.125},
    **{f"flow.homogeneous.{name}": lambda: {"net": homogeneous.Diagonal(Z, LABELS),
                                            "theta": np.array([1.0, 0.75, 0.25, 0.5])}
       for name in ("kkt_residual", "log_inverse_loss", "normalized_margin", "smoothed_margin")},
    "flow.homogeneous.neuron_imbalance": lambda: {"W": C2.copy(), "a": np.array([1.0, 0.5])},
    "flow.homogeneous.relu_margin_bound": lambda: zy(p=np.array([0.5, 0.25, 0.25])),
    "flow.homogeneous.xor_certificate": dict,
    "flow.incremental.activation_time": lambda: {"target": 1.0, "alpha": 0.25, "depth": 3, "fraction": 0.5},
    "flow.incremental.crossing_times": lambda: {"t": np.array([0.0, 1.0, 2.0]),
                                                "path": np.array([[0.0, 0.0], [1.0, 0.0], [4.0, -1.0]]),
                                                "level": np.array([2.5, 0.5])},
    "flow.incremental.depth_separation": lambda: {"sigma1": 2.0, "sigma2": 1.0, "depth": 3, "learned": 0.75,
                                                  "unlearned": 0.25},
    "flow.incremental.first_activation_time": lambda: xy(alpha=0.25),
    "flow.incremental.thresholding_time": lambda: {"tau": 0.5, "alpha": 0.25, "depth": 3},
    "flow.incremental.toy_path": lambda: {"t": TIMES.copy(), "target": 1.0, "alpha": 0.25, "depth": 2},
    "flow.maxmargin.asymptotics": zy,
    "flow.maxmargin.hard_margin": zy,
    "flow.maxmargin.hinge_threshold": zy,
    "flow.maxmargin.soft_margin": lambda: zy(C=0.5),
    "flow.maxmargin.margin": lambda: zy(w=np.array([1.0, 0.5])),
    "flow.maxmargin.degenerate_example": lambda: {"log_t": np.array([1.0, 2.0])},
    "flow.maxmargin.gradient_descent": lambda: zy(eta=0.25, k=3, loss="exp", w0=np.array([0.5, 0.25])),
    "flow.maxmargin.gradient_flow": lambda: zy(log_t=np.array([1.0, 0.0, 3.0]), loss="logistic",
                                               w0=np.array([0.5, 0.25])),
    "flow.maxmargin.momentum_gradient_descent": lambda: zy(k=3, w0=np.array([0.5, 0.25])),
    "flow.maxmargin.normalized_gradient_descent": lambda: zy(eta=0.25, k=3, w0=np.array([0.5, 0.25])),
    "flow.maxmargin.margin_gap_bound": lambda: {"margin": 0.5, "n": 3, "log_t": np.array([5.0, 6.0])},
    "flow.maxmargin.momentum_margin_gap_bound": lambda: {"margin": 0.5, "n": 3, "radius": 1.0, "k": 3},
    "flow.maxmargin.normalized_margin_gap_bound": lambda: {"margin": 0.5, "n": 3, "eta": 0.5, "k": 3},
    "flow.minnorm.early_stopping_penalty": lambda: {"X": X.copy(), "t": 0.5},
    "flow.minnorm.gradient_descent": lambda: xy(eta=0.25, k=3, w0=W0.copy(), momentum=0.5),
    "flow.minnorm.gradient_flow": lambda: xy(t=TIMES.copy(), w0=W0.copy()),
    "flow.minnorm.limit": lambda: xy(w0=W0.copy()),
    "flow.minnorm.preconditioned_limit": lambda: xy(D=np.diag([1.0, 2.0, 0.5]), w0=W0.copy()),
    "flow.minnorm.ridge": lambda: xy(penalty=0.5, w0=W0.copy()),
    "flow.minnorm.step_sizes": lambda: {"X": X.copy()},
    "flow.minnorm.stochastic_gradient_descent": lambda: xy(eta=0.25, indices=np.array([0, 1, 1]), w0=W0.copy()),
    "flow.neuron.Activation": lambda: {"value": np.sinh, "inverse": np.arcsinh, "derivative": np.cosh},
    "flow.neuron.contraction_rate": lambda: xy(inverse=np.arcsinh, derivative=np.cosh, w0=W0.copy()),
    "flow.neuron.limit": lambda: xy(inverse=np.arcsinh, w0=W0.copy()),
    "flow.neuron.gradient_flow": lambda: xy(t=TIMES.copy(), activation=neuron.tanh.value,
                                            derivative=neuron.tanh.derivative, w0=W0.copy()),
    "flow.neuron.leaky_relu": lambda: {"slope": 0.5},
    "flow.neuron.relu_example": lambda: {"c": 2.0},
    # gap
    "gap.gaussian.GaussianLinear": lambda: {"C": C2.copy(), "theta_star": np.array([0.5, -0.5]), "sigma": 0.5},
    **{f"gap.gaussian.GaussianLinear.{name}": lambda: {"theta": np.array([1.0, 0.5])}
       for name in ("risk", "G", "Sigma", "trace", "grad_trace")},
    "gap.gaussian.GaussianLinear.ridge": lambda: {"eta": 0.25, "N": 4, "K": 2},
    "gap.gaussian.GaussianLinear.weight_decay": lambda: {"eta": 0.25, "N": 4, "K": 2},
    "gap.gaussian.GaussianLinear.modified_risk": lambda: {"theta": np.array([1.0, 0.5]), "eta": 0.25, "N": 4, "K": 2},
    "gap.gaussian.GaussianLinear.drift": lambda: {"theta": np.array([1.0, 0.5]), "eta": 0.25, "N": 4, "K": 2},
    "gap.gaussian.GaussianLinear.sgd_mean": lambda: {"theta": np.array([1.0, 0.5]), "eta": 0.25, "steps": 2},
    "gap.gaussian.GaussianLinear.gd_mean": lambda: {"theta": np.array([1.0, 0.5]), "eta": 0.25, "N": 4},
    "gap.gaussian.wishart_moments": lambda: {"d": 2, "N": 4, "order": 2},
    "gap.training_sets.drift": lambda: {"problem": problem(), "eta": 0.25, "N": 4, "K": 2, "epochs": 2,
                                        "momentum": 0.5, "reshuffle": True},
    "gap.training_sets.modified_coefficient": lambda: {"K": 2, "momentum": 0.5},
    "gap.training_sets.modified_gd": lambda: {"problem": problem(), "eta": 0.25, "N": 2, "K": 2, "epochs": 1,
                                              "momentum": 0.5, "covariance": "population", "coefficient": 0.5},
    "gap.training_sets.pair_sum": lambda: {"etas": np.array([0.5, 0.25]), "batches": [[0, 1], [2]], "N": 4,
                                           "momentum": 0.5},
    "gap.training_sets.schedule_drift": lambda: {"problem": problem(), "etas": np.array([0.5, 0.25]),
                                                 "batches": [[0, 1], [2]], "N": 4, "momentum": 0.5},
    "gap.one_data_set.data_drift": lambda: {"problem": problem(), "eta": 0.25, "K": 2, "epochs": 2,
                                            "sampler": "epochs"},
    "gap.one_data_set.data_modified_gd": lambda: {"problem": problem(), "eta": 0.25, "K": 2, "epochs": 2},
    "gap.one_data_set.fixed_horizon": lambda: {"problem": problem(), "tau": np.array([0.25, 0.5]), "v": 0.5,
                                               "a": 0.25},
    "gap.one_data_set.paths": lambda: {"problem": problem(), "eta": 0.25,
                                       "weights": np.array([[[1.0, 0.0], [0.0, 1.0]]]), "momentum": 0.5},
    "gap.one_data_set.two_numbers": lambda: {"sampler": "epochs", "N": 4, "K": 2, "epochs": 2},
    "gap.onestep.all_orders": lambda: {"problem": problem(), "eta": 0.25, "N": 4},
    "gap.onestep.batch_covariance": lambda: {"A": np.array([0, 1]), "B": np.array([1, 2]), "N": 4},
    "gap.onestep.divergence": lambda: {"train": problem(), "test": problem(), "eta": 0.25, "N": 4},
    "gap.onestep.gap_after": lambda: {"problem": problem(), "eta": 0.25, "N": 2, "K": 2},
    "gap.onestep.many_steps": lambda: {"problem": problem(), "eta": 0.25, "N": 4, "T": 3},
    "gap.onestep.moments": lambda: {"problem": problem(), "theta": np.array([0.5])},
    "gap.onestep.one_step": lambda: {"problem": problem(), "eta": 0.25, "N": 4},
    "gap.onestep.variance": lambda: {"problem": problem(), "N": 4, "M": 2},
    "gap.penalties.barrett_dherin_penalty": lambda: {"gradients": C2.copy(), "eta": 0.5},
    "gap.penalties.smith_penalty": lambda: {"gradients": C2.copy(), "eta": 0.5},
    "gap.penalties.roberts_penalty": lambda: {"gradients": C2.copy(), "eta": 0.5, "batch_size": 1},
    "gap.penalties.modified_gradient": lambda: on_model(eta=0.5, batch_size=2, verify=True),
    "gap.penalties.modified_loss": lambda: on_model(eta=0.5, batch_size=2, verify=True),
    "gap.precondition.InverseCovariance": lambda: {"params": list(linear().parameters()), "lr": 0.5, "rank": 2,
                                                   "rho": 0.5, "power": 1.0},
    "gap.precondition.InverseCovariance.refresh": lambda: {**on_model(), "model": shared()},
    "gap.precondition.InverseCovariance.step": lambda: {"closure": None},
    "gap.precondition.LowRank.apply": lambda: {"g": torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)},
    "gap.precondition.low_rank": lambda: {"rows": torch.tensor([[1.0, 0.5], [0.25, 2.0]], dtype=torch.float64),
                                          "rank": 1, "lam": 0.5, "power": 1.0},
    # gradstats
    **{f"gradstats.statistics.{name}": lambda: on_model(chunk_size=2, verify=True)
       for name in ("grad_trace", "gram", "moments")},
    "gradstats.statistics.curvature": lambda: on_model(verify=True),
    "gradstats.statistics.per_example": lambda: on_model(verify=True),
    **{f"gradstats.naive.{name}": on_model for name in ("curvature", "grad_trace", "gram", "moments", "per_example")},
    "gradstats.naive.gradients": lambda: {"sample": sample()},
    "gradstats.naive.hessian_product": lambda: {"sample": sample(), "i": 1,
                                                "v": torch.ones(3, dtype=torch.float64)},
    "gradstats.estimators.from_gram": lambda: {"K": GRADIENTS @ GRADIENTS.T},
    "gradstats.estimators.two_halves": lambda: {"g_B": torch.tensor([1.0, 0.5], dtype=torch.float64),
                                                "g_C": torch.tensor([0.5, 0.25], dtype=torch.float64), "n": 2},
    # the ledger and the networks
    "ledger.claims": dict,
    "ledger.explain": lambda: {"id": "hegde-erratum-2"},
    "ledger.of_chapter": lambda: {"file": "book/1-flow/01_min_norm.ipynb"},
    "ledger.parse": lambda: {"text": Words("- {id: ours-x, source: ours, verdict: ours, chapter: book/x.ipynb}")},
    "nets.GhostBatchNorm": lambda: {"channels": 2, "ghost": 2, "dtype": torch.float64},
    "nets.GhostBatchNorm.forward": lambda: {"x": torch.arange(16.0, dtype=torch.float64).reshape(4, 1, 2, 2)},
    "nets.conv": lambda: {"channels": (1, 2, 2), "classes": 3, "size": 4, "seed": 0, "dtype": torch.float64},
    "nets.mlp": lambda: {"widths": (3, 2, 2), "activation": "relu", "gain": 0.5, "seed": 0, "dtype": torch.float64},
    "nets.resnet18": lambda: {"classes": 2, "channels": 1, "width": 8, "norm": "batch", "ghost": 2, "seed": 0,
                              "dtype": torch.float32},
    "nets.small_conv": lambda: {"classes": 2, "channels": 1, "size": 16, "seed": 0, "dtype": torch.float64},
    "nets.vgg11": lambda: {"classes": 2, "channels": 1, "width": 2, "seed": 0, "dtype": torch.float32},
    # noise
    "noise.cumulants.cumulants": lambda: {"kind": "sparse_cov", "values": np.array([1.0, 3.0, 0.5, 2.0]),
    "b": 2, "B": 4},
    "noise.cumulants.third_cumulant": lambda: {"kind": "sparse_cov", "G": np.array([[1.0, 3.0, 0.5, 2.0]]),
    "b": 2, "B": 4},
    **{f"noise.escape.{name}": lambda: {"slope": np.array([0.0, -0.5, 0.0, 0.5]), "noise": particles.gaussian(),
                                        "start": -1.0, "saddle": 0.0, "eta": 0.25, "sigma": 0.5}
       for name in ("exponent", "skewness_correction")},
    "noise.escape.times": lambda: {"slope": np.array([0.0, 0.5]), "noise": particles.rademacher(), "start": 0.0,
                                   "out": 1.0, "eta": 0.5, "cap": 5, "runs": 3, "seed": 0, "sigma": 0.5,
                                   "fast": False, "progress": False},
    "noise.leastsquares.LeastSquares": lambda: {"x": np.array([[1.0], [0.5]]), "y": np.array([0.0, 4.0]),
                                                "probabilities": np.array([0.25, 0.75])},
    "noise.leastsquares.LeastSquares.loss": lambda: {"theta": np.array([1.0, 0.5])},
    "noise.leastsquares.Constants.R2_weights": lambda: {"q": 0.5, "r": 1.0},
    "noise.leastsquares.bound": lambda: {"law": law(), "q": 0.5, "r": 1.0, "eta": 0.125, "steps": 3,
                                         "theta0": np.array([1.0, 0.5]), "well_specified": False},
    "noise.leastsquares.constants": lambda: {"law": law()},
    "noise.leastsquares.run": lambda: {"law": law(), "q": 0.5, "r": 1.0, "eta": 0.125, "steps": 3,
                                       "theta0": np.array([1.0, 0.5])},
    "noise.leastsquares.run_fixed": lambda: {"x": np.array([[1.0], [0.5]]), "y": np.array([1.0, -1.0]),
                                             "covariance": np.array([[0.25, -0.25], [-0.25, 0.25]]), "eta": 0.25,
                                             "steps": 3, "theta0": np.array([0.5])},
    "noise.leastsquares.weight_moments": lambda: {"covariance": np.array([[0.25, -0.25], [-0.25, 0.25]])},
    "noise.msgd.Weights": lambda: {"kind": "sparse_cov", "n": 4, "b": 2, "B": 4, "seed": 0},
    "noise.msgd.Weights.__call__": lambda: {"step": 1},
    "noise.msgd.Weights.draw": lambda: {"step": 1},
    "noise.msgd.train": lambda: {"model": linear(), "train": tuple(examples().values()),
                                 "test": tuple(examples(2).values()), "kind": "sparse_cov",
                                 "b": 2, "B": 4, "eta": 0.125,
                                 "steps": 2, "loss": half_square, "seed": 0, "schedule": {1: 0.5}, "chunk": 2,
                                 "device": "cpu", "precision": "float64", "evaluate_every": 1,
                                 "progress": False, "timeout": 60.0},
    "noise.replicas.Replica": lambda: {"kind": "sparse_cov",
    "b": 2, "eta": 0.25, "B": 4, "seed": 0, "data": 0, "start": 0},
    "noise.replicas.train": lambda: {"replicas": [replicas.Replica("sgd", 2, 0.25)], "starts": [sequential()],
                                     "inputs": examples()["inputs"][None],
                                     "targets": torch.tensor([[0, 1, 1, 0]]), "steps": 2,
                                     "test": (examples(2)["inputs"][None], torch.tensor([[1, 0]])), "at": [0, 2],
                                     "together": 1},
    "noise.sampling.centre": lambda: {"epsilon": np.array([1.0, 3.0, 0.0, 4.0]), "ghost": 2},
    "noise.sampling.compensation": lambda: {"kind": "cov", "b": 1, "B": 2, "n": 4, "ghost": 2},
    "noise.sampling.covariance": lambda: {"kind": "sparse_cov", "n": 4, "b": 2, "B": 4},
    "noise.sampling.draw": lambda: {"kind": "sparse_cov", "n": 4, "b": 2, "B": 4, "rng": np.random.default_rng(0),
    "size": 2},
    "noise.sampling.draw_minibatch": lambda: {"s2": 0.5, "n": 4, "B": 4, "centred": True, "replacement": False,
                                              "ghost": 2, "rng": np.random.default_rng(0), "size": 2},
    "noise.sampling.gradient_covariance": lambda: {"kind": "sparse_cov", "G": np.array([[1.0, 3.0, 0.5, 2.0]]), "b": 2,
                                                   "B": 4},
    "noise.sampling.minibatch_covariance": lambda: {"s2": 0.5, "n": 4, "B": 4, "centred": True, "replacement": False,
                                                    "ghost": 2},
    # plotting
    "plotting.band": lambda: {"ax": axes(), "x": np.array([0.0, 1.0]), "samples": np.array([[1.0, 2.0], [0.5, 1.0]]),
                              "label": Words("mean")},
    "plotting.frames": lambda: {"draw": lambda ax, value: None, "values": [1.0], "labels": ["one"], "alts": ["one"],
                                "title": Words("Which"), "chosen": 0, "panels": 1, "figsize": (1.0, 1.0)},
    "plotting.interval": lambda: {"samples": np.array([[1.0, 2.0], [0.5, 1.0]])},
    "plotting.panels": lambda: {"n": 2, "figsize": (1.0, 1.0)},
    "plotting.path": lambda: {"ax": axes(), "points": np.array([[0.0, 1.0], [1.0, 0.5]]), "label": Words("path")},
    "plotting.png": lambda: {"fig": Figure(figsize=(1.0, 1.0))},
    "plotting.svg": lambda: {"fig": Figure(figsize=(1.0, 1.0))},
    "plotting.use": dict,
    "plotting.valley": lambda: {"ax": axes(), "loss": lambda p: (p**2).sum(-1), "x": (-1.0, 1.0), "y": (-1.0, 1.0)},
    # problems and records
    "problems.FiniteProblem": lambda: {"losses": [lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2],
                                       "probabilities": np.array([0.25, 0.75]), "theta0": np.array([1.0])},
    "problems.FiniteProblem.loss": lambda: {"theta": np.array([0.5])},
    "problems.FiniteProblem.values": lambda: {"thetas": np.array([[0.5], [1.0]])},
    "problems.FiniteProblem.gradients": lambda: {"thetas": np.array([[0.5], [1.0]])},
    "problems.FiniteProblem.derivatives": lambda: {"order": 2, "theta": np.array([0.5])},
    "problems.kinks": lambda: {"value": torch.relu(torch.ones(2, 2, requires_grad=True))},
    "records.load": lambda: {"name": "half", "folder": recorded()},
    "records.save": lambda: {"name": Words("half"), "settings": {"x": 1}, "seeds": [0], "results": {"x": 0.5},
                             "wall_seconds": 0.1, "device": Words("cpu"), "folder": folder()},
    "records.write_json": lambda: {"path": folder() / "x.json", "content": {"x": 0.5}},
    "training.run": lambda: {"model": linear(), "train": tuple(examples().values()),
                             "test": tuple(examples(2).values()), "weights": lambda step: ([0, 1], [0.5, 0.5]),
                             "eta": 0.125, "steps": 2, "loss": half_square, "seed": 0, "schedule": {1: 0.5},
                             "chunk": 2, "device": "cpu", "precision": "float64", "evaluate_every": 1,
                             "progress": False, "timeout": 60.0, "settings": {"x": 1}},
}  # fmt: skip

EXEMPT = {
    "experiments.run": "runs for seconds to hours; tests/experiments/test_runner.py calls it",
}
"""Single functions, with the reason."""


@cache
def shared() -> nn.Module:
    return linear()


def preconditioner() -> precondition.InverseCovariance:
    model = shared()
    half_square(model(examples()["inputs"]), examples()["targets"]).mean().backward()
    return precondition.InverseCovariance(model.parameters(), 0.5, rank=2, rho=0.5)


OBJECTS: dict[str, Callable[[], Any]] = {
    "diagrams.diagram.Diagram": lambda: Diagram("(01-2)(02-12)"),
    "diagrams.landscapes.CubicChi": landscapes.CubicChi,
    "diagrams.landscapes.Gauss": landscapes.Gauss,
    "diagrams.landscapes.MeanEstimation": lambda: landscapes.MeanEstimation(2.0),
    "diagrams.landscapes.RegularizedMean": lambda: landscapes.RegularizedMean(1.0, 2.0, 1.5, 4, 2.0),
    "diagrams.landscapes.Screw": landscapes.Screw,
    "diagrams.predictions.Coefficients": lambda: predictions.Coefficients(np.array([1.0, 0.5])),
    "diagrams.predictions.Scalars": scalars,
    "ensembles.particles.Ensemble": lambda: particles.sgd(quadratic(), 0.25, 2, 3, seed=0),
    "flow.homogeneous.DeepLinear": lambda: homogeneous.DeepLinear(Z, LABELS, [2]),
    "flow.homogeneous.Diagonal": lambda: homogeneous.Diagonal(Z, LABELS),
    "flow.homogeneous.ReLU": lambda: homogeneous.ReLU(Z, LABELS, 2),
    "gap.gaussian.GaussianLinear": lambda: GaussianLinear(np.eye(2), [0.0, 0.0], 0.5),
    "gap.precondition.InverseCovariance": preconditioner,
    "gap.precondition.LowRank": lambda: precondition.low_rank(torch.eye(3, dtype=torch.float64), rank=2, lam=0.5),
    "nets.GhostBatchNorm": lambda: implicitreg.nets.GhostBatchNorm(1, 2, torch.float64),
    "noise.leastsquares.LeastSquares": law,
    "noise.leastsquares.Constants": lambda: leastsquares.constants(law()),
    "noise.msgd.Weights": lambda: msgd.Weights("sparse_cov", 4, 2, B=4),
    "problems.FiniteProblem": problem,
}
"""How the objects are made whose methods are called."""


def skipped(module: str) -> bool:
    return any(module == name or (name.endswith(".") and module.startswith(name)) for name in EXEMPT_MODULES)


@cache
def public() -> dict[str, Callable[..., Any]]:
    """What can be called: each function, class and method under its longest public name."""
    found: dict[int, tuple[str, Any]] = {}
    for info in [None, *pkgutil.walk_packages(implicitreg.__path__, "implicitreg.")]:
        name = "implicitreg" if info is None else info.name
        if any(part.startswith("_") for part in name.split(".")):
            continue
        short = name.removeprefix("implicitreg").removeprefix(".")
        if skipped(short):
            continue
        module = importlib.import_module(name)
        for entry in module.__all__:
            thing = getattr(module, entry)
            if not callable(thing) or not getattr(thing, "__module__", "").startswith("implicitreg"):
                continue
            key = f"{short}.{entry}".removeprefix(".")
            if id(thing) not in found or len(found[id(thing)][0]) < len(key):
                found[id(thing)] = key, thing
    calls = dict(found.values())
    for name, thing in list(calls.items()):
        if inspect.isclass(thing) and name not in NO_CALLS:
            calls |= {f"{name}.{method}": getattr(thing, method) for method in methods(thing)}
    return calls


def methods(kind: type) -> list[str]:
    """The public methods that a class of the package defines and that take arguments, or None for a protocol."""
    names = []
    for base in kind.__mro__:
        if base.__module__.startswith("implicitreg"):
            names += [n for n, f in vars(base).items() if _method(n, f)]
    return sorted(set(names))


def _method(name: str, f: Any) -> bool:
    if isinstance(f, classmethod | staticmethod):
        return not name.startswith("_")
    return (
        inspect.isfunction(f)
        and (name == "__call__" or not name.startswith("_"))
        and len(inspect.signature(f).parameters) > 1
    )


def target(name: str) -> Callable[..., Any]:
    """What the name stands for: a method is bound to a fresh object."""
    owner, _, method = name.rpartition(".")
    return getattr(OBJECTS[owner](), method) if owner in OBJECTS else public()[name]
