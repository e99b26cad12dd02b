"""What is wrong is refused where it enters, in words that name it; what is kept is a copy; results can be printed."""

import dataclasses
import importlib
import inspect
import pkgutil

import implicitreg as ir
import numpy as np
import pytest
import torch
from implicitreg import ensembles
from implicitreg._brief import brief
from implicitreg.diagrams import landscapes
from implicitreg.ensembles import particles
from implicitreg.flow import factorization, geometry, homogeneous, neuron
from implicitreg.gap import gaussian, onestep, penalties, precondition
from implicitreg.gradstats import moments
from implicitreg.noise import leastsquares, replicas, sampling
from implicitreg.noise.msgd import Weights, train
from torch import nn

X, Y = np.array([[1.0, 0.2], [0.1, 1.0], [1.0, 1.5]]), np.array([1.0, -1.0, 1.0])
WIDE, W0 = [[1.0, 1.0]], [1.0, 1.0]
MODEL = nn.Linear(2, 1, dtype=torch.float64)
INPUTS, TARGETS = torch.ones(4, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
THETAS = torch.zeros(3, 3, dtype=torch.float64)
MANY = INPUTS.expand(3, 4, 2), TARGETS.expand(3, 4)


def square(outputs, targets):
    return (outputs[:, 0] - targets) ** 2 / 2


class Other:
    """Nothing that anything expects."""


OBJECTS = {
    "net": [
        lambda net: homogeneous.normalized_margin(net, [1.0]),
        lambda net: homogeneous.smoothed_margin(net, [1.0]),
        lambda net: homogeneous.log_inverse_loss(net, [1.0]),
        lambda net: homogeneous.gradient_flow(net, [1.0], [1.0]),
        lambda net: homogeneous.kkt_residual(net, [1.0]),
    ],
    "potential": [
        lambda potential: geometry.mirror_limit(WIDE, [4.0], potential, W0),
        lambda potential: geometry.mirror_descent(WIDE, [4.0], potential, 0.1, 1, W0),
    ],
    "model": [
        lambda model: ensembles.flatten(model),
        lambda model: ensembles.losses(model, square, THETAS, *MANY),
        lambda model: ensembles.gradients(model, square, THETAS, *MANY),
        lambda model: moments(model, square, INPUTS, TARGETS),
        lambda model: penalties.modified_loss(model, square, INPUTS, TARGETS, eta=0.1, batch_size=2),
        lambda model: precondition.InverseCovariance(MODEL.parameters(), 0.1).refresh(model, square, INPUTS, TARGETS),
        lambda model: train(model, (INPUTS, TARGETS), kind="gd", b=4, eta=0.1, steps=1, loss=square, progress=False),
    ],
    "loss": [
        lambda loss: ensembles.losses(MODEL, loss, THETAS, *MANY),
        lambda loss: ensembles.gradients(MODEL, loss, THETAS, *MANY),
        lambda loss: moments(MODEL, loss, INPUTS, TARGETS),
        lambda loss: ir.training.run(
            MODEL, (INPUTS, TARGETS), weights=lambda t: ([0], [1.0]), eta=0.1, steps=1, loss=loss, progress=False
        ),
    ],
    "weights": [lambda w: ir.training.run(MODEL, (INPUTS, TARGETS), weights=w, eta=0.1, steps=1, progress=False)],
    "direction": [lambda d: ir.training.run(MODEL, (INPUTS, TARGETS), direction=d, eta=0.1, steps=1, progress=False)],
    "gradient": [lambda gradient: factorization.deep_gradient_flow([[[1.0]]], gradient, [1.0])],
    "factors": [lambda factors: factorization.deep_gradient_flow(factors, np.ones_like, [1.0])],
    "layers": [homogeneous.layer_imbalance, homogeneous.alignment],
    "inputs": [lambda x: penalties.modified_gradient(MODEL, square, x, TARGETS, eta=0.1, batch_size=2)],
    "widths": [ir.nets.mlp],
    "channels": [lambda channels: ir.nets.conv(channels, 10, size=8)],
    "replicas": [lambda r: replicas.train(r, [MODEL], *MANY, steps=1)],
    "problem": [
        lambda problem: onestep.one_step(problem, 0.1, 2),
        lambda problem: ir.exact.run(problem, 0.1, N=2, T=1, B=1),
        lambda problem: ir.diagrams.gap_series(problem, N=2, T=1, B=1, order=1),
    ],
    "landscape": [lambda landscape: particles.gd(landscape, 0.1, 1, 8, N=2, seed=0)],
    "law": [leastsquares.constants],
    "g": [lambda g: precondition.low_rank(torch.eye(2), rank=1, lam=1.0).apply(g)],
    "link": [lambda link: geometry.Potential(link, np.exp, np.exp)],
    "inverse": [lambda inverse: neuron.limit(WIDE, [0.5], inverse)],
}


@pytest.mark.parametrize("value", [None, 5, Other(), homogeneous.ReLU], ids=["None", "5", "object", "class"])
@pytest.mark.parametrize(
    ("name", "call"),
    [(name, call) for name, calls in OBJECTS.items() for call in calls],
    ids=[f"{name}-{k}" for name, calls in OBJECTS.items() for k in range(len(calls))],
)
def test_what_is_no_such_object_is_named(name, call, value):
    if value is None and name in {"weights", "direction"}:
        pytest.skip("none given is another error")
    if value is homogeneous.ReLU and name in {"loss", "weights", "direction", "gradient", "link", "inverse"}:
        pytest.skip("a class can be called")
    if value is None and name == "loss" and call is OBJECTS["loss"][-1]:
        pytest.skip("cross-entropy is the default")
    with pytest.raises(TypeError, match=rf"\b{name}\b.*expected"):
        call(value)


HOLE = np.ma.masked_array([[1.0, 9.0], [2.0, 3.0]], mask=[[0, 1], [0, 0]])
GAP = np.ma.masked_array([1.0, 9.0, 1.0], mask=[0, 1, 0])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("X", lambda: ir.flow.minnorm.limit(HOLE, [1.0, 2.0])),
        ("X", lambda: ir.flow.minnorm.limit([HOLE[0], HOLE[1]], [1.0, 2.0])),
        ("y", lambda: ir.flow.maxmargin.hard_margin(X, GAP)),
        ("eta", lambda: ir.flow.minnorm.gradient_descent(X, Y, np.ma.masked, 1)),
        ("indices", lambda: ir.flow.minnorm.stochastic_gradient_descent(X, Y, 0.1, np.ma.masked_array([0, 1], [0, 1]))),
        ("theta", lambda: homogeneous.Diagonal(X, Y).q(np.ma.masked_array(np.ones(4), [0, 0, 0, 1]))),
        ("X", lambda: homogeneous.ReLU(HOLE, [1, 1], 2)),
        ("C", lambda: gaussian.GaussianLinear(HOLE, [0.0, 0.0], 1.0)),
        ("A", lambda: onestep.batch_covariance(np.ma.masked_array([0, 1], [0, 1]), [0, 1])),
        ("probabilities", lambda: ir.FiniteProblem([torch.sum] * 3, GAP, [0.0])),
        ("values", lambda: particles.atoms(GAP)),
        ("draws", lambda: ensembles.estimate(HOLE)),
        ("thetas", lambda: landscapes.Gauss().loss(HOLE[:, 1:])),
        ("epsilon", lambda: sampling.centre(GAP)),
        ("x", lambda: leastsquares.LeastSquares(HOLE, [1.0, 2.0], [0.5, 0.5])),
        ("inputs of train", lambda: ir.training.run(MODEL, (HOLE, np.zeros(2)), weights=print, eta=0.1, steps=1)),
        ("measured", lambda: ir.check("x", measured=GAP, predicted=GAP.data, atol=1e-9)),
        ("samples", lambda: ir.plotting.interval(GAP)),
    ],
)
def test_masked_entries_are_no_data(name, call):
    with pytest.raises(ValueError, match=rf"{name} has masked entries"):
        call()


def test_a_masked_array_without_masked_entries_is_an_array():
    np.testing.assert_array_equal(ir.flow.minnorm.limit(np.ma.masked_array([[3.0, 4.0]]), [25.0]), [3.0, 4.0])


def test_a_tensor_with_a_graph_is_named_with_its_remedy():
    with pytest.raises(TypeError, match=r"X is a Tensor: expected an array of numbers \(.*detach"):
        ir.flow.minnorm.limit(torch.ones(1, 2, requires_grad=True), [1.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_probabilities_of_a_short_dtype_are_meant_to_sum_to_one(dtype):
    p = np.array([0.1, 0.2, 0.7], dtype=dtype)
    found = ir.FiniteProblem([torch.sum] * 3, p, [0.0]).probabilities
    assert found.sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_allclose(found, [0.1, 0.2, 0.7], rtol=2 * np.finfo(dtype).eps)
    with pytest.raises(ValueError, match="probabilities sums to"):
        ir.FiniteProblem([torch.sum] * 3, p * dtype(1.01), [0.0])


def test_seeds_of_64_bits_are_all_different():
    seeds = [0, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
    drawn = {tuple(Weights("gaussian_cov", 4, 2, seed=seed)(0)[1].tolist()) for seed in seeds}
    assert len(drawn) == len(seeds)


def test_a_result_that_float64_does_not_hold_is_an_error_that_names_the_sizes():
    with pytest.raises(ValueError, match=r"X up to 1e\+300.*, k up to 2: float64 does not hold"):
        ir.flow.minnorm.gradient_descent([[1e300]], [1.0], 1.0, 2)


@pytest.mark.parametrize("size", [19, 17, 0])
@pytest.mark.parametrize(
    "net",
    [homogeneous.ReLU(X, Y, 6), homogeneous.DeepLinear(X, Y, [4, 2]), homogeneous.Diagonal(X, Y)],
    ids=["ReLU", "linear", "diagonal"],
)
def test_networks_take_lists_and_refuse_other_sizes(net, size):
    theta = np.linspace(-1, 1, net.size)
    np.testing.assert_array_equal(net.q(theta.tolist()), net.q(theta))
    np.testing.assert_array_equal(net.pullback(theta.tolist(), np.ones(3)), net.pullback(theta, np.ones(3)))
    for call in (net.q, lambda t: net.pullback(t, np.ones(3)), getattr(net, "layers", net.q)):
        with pytest.raises(ValueError, match=rf"theta has shape \({size},\): expected"):
            call(np.zeros(size))


def test_a_loss_that_is_no_number_is_an_error():
    """A run that has diverged."""
    with pytest.raises(ValueError, match="loss holds NaN or infinite numbers"):
        ensembles.losses(MODEL, lambda o, t: torch.log(-1 - t), THETAS, *MANY)


def test_dtypes_that_differ_are_named():
    with pytest.raises(TypeError, match=r"inputs has dtype torch.float32: expected torch.float64"):
        ensembles.losses(MODEL, square, THETAS, MANY[0].float(), MANY[1])


KEEPERS = {
    "ReLU": (lambda a: homogeneous.ReLU(a, Y, 2), X, lambda n: (n.X, n.q(np.ones(6)))),
    "DeepLinear": (lambda a: homogeneous.DeepLinear(a, Y, [1]), X, lambda n: (n.X, n.q(np.ones(3)))),
    "Diagonal": (lambda a: homogeneous.Diagonal(a, Y), X, lambda n: (n.X, n.q(np.ones(4)))),
    "labels": (lambda a: homogeneous.ReLU(X, a, 2), Y, lambda n: (n.y, n.q(np.ones(6)))),
    "GaussianLinear": (lambda a: gaussian.GaussianLinear(a, [0.0, 1.0], 1.0), np.eye(2), lambda law: (law.C,)),
    "LeastSquares": (lambda a: leastsquares.LeastSquares(a, Y, [0.5, 0.3, 0.2]), X, lambda law: (law.x, law.Sigma)),
    "theta0": (lambda a: ir.FiniteProblem([torch.sum], [1.0], a), np.ones(2), lambda p: (p.theta0,)),
    "weights": (lambda a: ir.FiniteProblem([torch.sum] * 2, a, [1.0]), np.ones(2) / 2, lambda p: (p.probabilities,)),
    "atoms": (lambda a: particles.atoms(a), np.array([1.0, -1.0]), lambda n: (n.values,)),
}  # fmt: skip


@pytest.mark.parametrize("name", KEEPERS)
def test_what_is_kept_is_a_copy(name):
    make, array, show = KEEPERS[name]
    mine = array.copy()
    thing, before = make(mine), show(make(array.copy()))
    mine *= 10
    for now, then in zip(show(thing), before, strict=True):
        np.testing.assert_array_equal(now, then)


def dataclasses_of_the_package():
    found = {}
    for module in pkgutil.walk_packages(ir.__path__, "implicitreg."):
        if not any(part.startswith("_") or part == "exercises" for part in module.name.split(".")):
            for name in importlib.import_module(module.name).__all__:
                thing = getattr(importlib.import_module(module.name), name)
                if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
                    found[f"{thing.__module__.removeprefix('implicitreg.')}.{name}"] = thing
    return found


CLASSES = dataclasses_of_the_package()


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_what_holds_arrays_compares_and_prints(name):
    """``==`` of arrays has no truth value, and a thousand numbers are no answer to what this is."""
    kind = CLASSES[name]
    types = " ".join(str(f.type) for f in dataclasses.fields(kind))
    if any(word in types for word in ("ndarray", "Tensor", "ArrayLike")):
        assert not kind.__dataclass_params__.eq
        assert kind.__repr__ is not object.__repr__
        assert kind.__repr__ is brief or not kind.__dataclass_params__.repr
    if any(word in types for word in ("Callable", "Elementwise", "Module")):
        assert kind.__repr__ is brief


def test_results_print_in_one_line():
    digits = repr(ir.datasets.load("digits", limit=3))
    assert digits.startswith("Dataset(images=<(3, 1, 8, 8) float32>, labels=array([")
    assert len(digits) < 300
    problem = repr(ir.FiniteProblem([lambda t: t.sum(), torch.sum], [0.5, 0.5], [1.0]))
    assert problem == ("FiniteProblem(losses=(<lambda>, sum), probabilities=array([0.5, 0.5]), theta0=array([1.]))")
    assert repr(neuron.sigmoid) == "Activation(value=expit, inverse=logit, derivative=_sigmoid_slope)"
    wide = moments(nn.Linear(100, 1), square, torch.rand(4, 100), torch.rand(4))
    for thing in (geometry.entropy(), homogeneous.ReLU(X, Y, 2), wide):
        assert " at 0x" not in repr(thing)
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 200
