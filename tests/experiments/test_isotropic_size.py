"""Larger isotropic noise: against the batched program with another batch size, and by hand."""

import numpy as np
import pytest
import torch
from implicitreg import ensembles, gradstats
from implicitreg.experiments import _isotropic_size, chosen_noise
from implicitreg.noise import replicas
from torch.nn.functional import cross_entropy

SHORT = {
    **_isotropic_size.SETTINGS, "times": [1, 10, 40], "seeds": [5, 6],
    "noisy": {**_isotropic_size.SETTINGS["noisy"], "steps": 12, "at": [0, 1, 12]},
}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return _isotropic_size.measure(SHORT)


@pytest.mark.parametrize(
    ("arm", "kind", "b"), [("sgd", "sgd", 10), ("1 times", "gld_iso", 10), ("10 times", "gld_iso", 1)]
)
def test_ten_times_the_size_is_a_tenth_of_the_batch(found, arm, kind, b):
    x, y, test, starts = chosen_noise._drawn(SHORT["noisy"], [5, 6], SHORT, torch.device("cpu"))
    runs = [replicas.Replica(kind, b, 0.1, seed=seed, data=k, start=k) for k, seed in enumerate((5, 6))]
    curves = replicas.train(runs, starts, x, y, steps=12, test=test, at=[0, 1, 12])
    for metric in chosen_noise.METRICS:
        np.testing.assert_allclose(found[arm][metric], getattr(curves, metric), rtol=1e-4)


def test_the_first_step_by_hand(found):
    """From gradients of single examples and the same normal numbers."""
    x, y, _, starts = chosen_noise._drawn(SHORT["noisy"], [5], SHORT, torch.device("cpu"))
    net = starts[0]
    each = lambda out, y: cross_entropy(out, y, reduction="none")  # noqa: E731
    G = gradstats.per_example(net, each, x[0], y[0]).double()
    size = 40 * ((G - G.mean(0)) ** 2).sum() / (len(G) * 10)
    epsilon = replicas._normal(5, 0, torch.zeros(G.shape[1]))
    step = 0.1 * (G.mean(0) + (size / G.shape[1]) ** 0.5 * epsilon)
    torch.nn.utils.vector_to_parameters(ensembles.flatten(net) - step.float(), net.parameters())
    loss = cross_entropy(net(x[0]), y[0]).item()
    assert found["40 times"]["train_loss"][0][1] == pytest.approx(loss, rel=1e-4)
    assert abs(found["10 times"]["train_loss"][0][1] / loss - 1) > 1e-3


def test_a_run_that_diverges_is_null():
    runs = _isotropic_size.measure({**SHORT, "times": [1e12]})
    assert runs["1000000000000.0 times"]["test_accuracy"][0][2] is None
