"""A batch of networks is what a loop over networks says it is."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from implicitreg import ensembles, nets
from torch import nn

LOSS = partial(F.cross_entropy, reduction="none")


def case(network, shape, R=3, n=5):
    generator = torch.Generator().manual_seed(1)
    p = ensembles.flatten(network).numel()
    thetas = torch.randn(R, p, generator=generator, dtype=torch.float64) / 4
    inputs = torch.rand(R, n, *shape, generator=generator, dtype=torch.float64)
    return network, thetas, inputs, torch.randint(0, 3, (R, n), generator=generator)


CASES = {
    "mlp": lambda: case(nets.mlp((4, 6, 3)), (4,)),
    "conv": lambda: case(nets.conv((2, 3, 4), 3, size=8), (2, 8, 8)),
    "single": lambda: case(nets.mlp((4, 3)), (4,), R=1, n=1),
}


def one_by_one(network, thetas, inputs, targets):
    for theta, x, y in zip(thetas, inputs, targets, strict=True):
        torch.nn.utils.vector_to_parameters(theta, network.parameters())
        values = LOSS(network(x), y)
        gradient = torch.autograd.grad(values.mean(), list(network.parameters()))
        yield values.detach(), torch.cat([g.flatten() for g in gradient])


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_equal_the_loop_over_networks(name):
    network, thetas, inputs, targets = CASES[name]()
    batched = (
        ensembles.losses(network, LOSS, thetas, inputs, targets),
        ensembles.gradients(network, LOSS, thetas, inputs, targets),
    )
    looped = [torch.stack(column) for column in zip(*one_by_one(network, thetas, inputs, targets), strict=True)]
    for ours, theirs in zip(batched, looped, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_batch_losses_are_means_not_sums():
    """Control: the gradient of the summed losses is n times ours."""
    network, thetas, inputs, targets = CASES["mlp"]()
    thetas = thetas.requires_grad_()
    total = ensembles.losses(network, LOSS, thetas, inputs, targets).sum()
    (of_sums,) = torch.autograd.grad(total, thetas)
    ours = ensembles.gradients(network, LOSS, thetas, inputs, targets)
    torch.testing.assert_close(5 * ours, of_sums, rtol=1e-12, atol=1e-14)
    assert not ours.requires_grad


def test_gradients_work_inside_no_grad_and_leave_the_model_alone():
    network, thetas, inputs, targets = CASES["mlp"]()
    before = ensembles.flatten(network)
    with torch.no_grad():
        ensembles.gradients(network, LOSS, thetas, inputs, targets)
    assert torch.equal(ensembles.flatten(network), before)
    assert all(p.grad is None for p in network.parameters())


def test_one_data_set_can_be_expanded_to_all_networks():
    network, thetas, inputs, targets = CASES["mlp"]()
    shared = ensembles.losses(network, LOSS, thetas, inputs[0].expand(3, 5, 4), targets[0].expand(3, 5))
    copied = ensembles.losses(network, LOSS, thetas, inputs[0].repeat(3, 1, 1), targets[0].repeat(3, 1))
    torch.testing.assert_close(shared, copied, rtol=1e-14, atol=0)


def test_flatten_is_a_copy_in_the_order_of_the_parameters():
    network = nets.mlp((4, 6, 3))
    theta = ensembles.flatten(network)
    assert torch.equal(theta[:24].view(6, 4), network[0].weight)
    theta += 1
    assert not torch.equal(theta[:24].view(6, 4), network[0].weight)


def test_standard_error_is_that_of_the_mean():
    """4000 means of 25 draws: their spread is the standard error on average, to 4 / sqrt(2 · 4000) relative."""
    draws = torch.randn(25, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    e = ensembles.estimate(draws)
    assert (e.se**2).mean().sqrt().item() == pytest.approx(e.mean.std().item(), rel=0.045)
    assert e.mean.shape == e.se.shape == (4000,)


NAN = torch.tensor([[float("nan")] * 45] * 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"thetas": torch.zeros(3, 44)}, ValueError, r"thetas has shape \(3, 44\): expected \(R, 45\)"),
        ({"thetas": torch.zeros(45)}, ValueError, r"thetas has shape \(45,\)"),
        ({"thetas": [[0.0]]}, TypeError, "thetas is a list: expected a tensor"),
        ({"thetas": NAN}, ValueError, "thetas holds NaN"),
        (
            {"inputs": torch.zeros(2, 5, 4)},
            ValueError,
            r"inputs has shape \(2, 5, 4\): expected \(R, n, …\) with R = 3",
        ),
        ({"inputs": torch.zeros(3, 0, 4)}, ValueError, r"inputs has shape \(3, 0, 4\)"),
        ({"targets": torch.zeros(3, 4)}, ValueError, r"targets has shape \(3, 4\)"),
        ({"loss": F.cross_entropy}, ValueError, r"loss returns shape \(\): expected \(n,\)"),
        ({"model": 5}, TypeError, "model is a int: expected a torch.nn.Module"),
        ({"loss": None}, TypeError, "loss = None: expected a callable"),
        ({"loss": lambda outputs, targets: 1.0}, TypeError, "loss returns a float"),
        ({"loss": lambda outputs, targets: LOSS(outputs, targets) / 0}, ValueError, "the loss holds NaN or infinite"),
        ({"inputs": torch.zeros(3, 5, 4)}, TypeError, r"inputs has dtype torch.float32: expected torch.float64"),
        (
            {"inputs": torch.zeros(3, 5, 2, dtype=torch.float64)},
            ValueError,
            r"model or loss fails for inputs of shape \(3, 5, 2\)",
        ),
        ({"targets": torch.full((3, 5), 9)}, ValueError, "model or loss fails.*out of bounds"),
        ({"model": nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5))}, ValueError, "model or loss fails.*random"),
        ({"inputs": torch.zeros(3, 5, 4).to_sparse()}, ValueError, "inputs has layout torch.sparse_coo"),
        ({"thetas": torch.zeros(3, 45, device="meta")}, ValueError, "thetas has layout torch.strided on meta"),
    ],
    ids=["p", "vector", "list", "nan", "R", "empty", "targets", "scalar loss", "no model", "no loss", "float",
         "infinite loss", "dtype", "features", "classes", "chance", "sparse", "meta"],
)  # fmt: skip
@pytest.mark.parametrize("function", [ensembles.losses, ensembles.gradients])
def test_bad_input(function, change, error, message):
    model, thetas, inputs, targets = case(nets.mlp((4, 9)), (4,))
    arguments = {"model": model, "loss": LOSS, "thetas": thetas, "inputs": inputs, "targets": targets, **change}
    with pytest.raises(error, match=message):
        function(**arguments)


def test_a_gradient_that_is_not_finite_is_refused():
    """The root of zero: a finite loss with an infinite slope."""
    model, thetas = nn.Linear(1, 1, bias=False), torch.zeros(1, 1)
    with pytest.raises(ValueError, match="the gradient holds NaN or infinite"):
        ensembles.gradients(model, lambda o, _: o[:, 0].abs().sqrt(), thetas, torch.ones(1, 1, 1), torch.zeros(1, 1))


def test_parameters_may_be_numbers():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.t = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return x * self.t

    x = torch.tensor([[[1.0], [3.0]]])
    g = ensembles.gradients(Scaled(), lambda o, _: o[:, 0] ** 2 / 2, torch.tensor([[2.0]]), x, torch.zeros(1, 2))
    assert g.tolist() == [[10.0]]


@pytest.mark.parametrize(
    ("draws", "error"),
    [(torch.zeros(1, 2), ValueError), (torch.tensor(1.0), ValueError), (torch.zeros(3, dtype=torch.int64), TypeError),
     ([1.0, 2.0], TypeError), (torch.tensor([1.0, float("inf")]), ValueError)],
    ids=["one draw", "scalar", "integers", "list", "infinite"],
)  # fmt: skip
def test_bad_draws(draws, error):
    with pytest.raises(error, match="draws"):
        ensembles.estimate(draws)
