"""What is known of torch's own parts is known rightly: nothing else passes for it, and the numbers are the same."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from implicitreg import gradstats, nets
from implicitreg.gradstats._known import known_loss, known_model
from torch import nn
from unruly import CLASSES, COUPLED_LOSSES, D, cross_entropy, data, error, network, truth

STATISTICS = ["moments", "grad_trace", "gram", "per_example"]
EXACT = 1e-10  # float64, a few layers, dozens of examples


class Own(nn.Linear):
    """A layer of somebody's own."""


def hooked(register):
    model = nets.mlp((D, 3))
    getattr(model[0], register)(lambda *_: None)
    return model


def patched():
    model = nets.mlp((D, 3))
    model[0].forward = lambda x: x.mean(0).expand(len(x), 3)
    return model


VECTORS, IMAGES = torch.zeros(4, D), torch.zeros(4, 1, 8, 8)
HOOKS = ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
         "register_full_backward_pre_hook"]  # fmt: skip


@pytest.mark.parametrize(("model", "inputs"), [
    (nets.mlp((D, 4, 3)), VECTORS), (nets.mlp((D, 4, 3), activation="relu"), VECTORS),
    (nets.conv((1, 2, 3), 3, size=8), IMAGES), (nn.Sequential(nn.Flatten(), nets.mlp((64, 3))), IMAGES),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 3)), IMAGES),
    (nn.Linear(D, 3), VECTORS),
])  # fmt: skip
def test_layers_in_a_row_are_known(model, inputs):
    assert known_model(model, inputs)
    with torch.no_grad():  # and so they keep the examples apart
        inputs = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()))
        alone = torch.cat([model(x[None].clone()) for x in inputs])
        assert torch.allclose(model(inputs.clone()), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("model", "inputs"), [
    *[(hooked(register), VECTORS) for register in HOOKS], (patched(), VECTORS), (nn.Sequential(Own(D, 3)), VECTORS),
    (nn.Sequential(nn.Linear(D, 3), nn.BatchNorm1d(3)), VECTORS),
    (nn.Sequential(nn.Dropout(), nn.Linear(D, 3)), VECTORS),
    (nn.Sequential(nn.Flatten(0), nn.Linear(D, 3)), VECTORS), (nn.Sequential(nn.Softmax(0), nn.Linear(D, 3)), VECTORS),
    (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(D, 3))), VECTORS),
    (nets.mlp((D, 3)), torch.zeros(D)), (nn.Sequential(nn.Linear(D, 3), nn.LayerNorm(3)), VECTORS),
    (nn.Conv2d(4, 3, 3), torch.zeros(4, 8, 8)),
    (nn.Sequential(nn.Flatten(1, 2), nn.Conv2d(4, 2, 3)), torch.zeros(4, 2, 4, 8)), (network("residual"), VECTORS),
])  # fmt: skip
def test_anything_else_is_not_known(model, inputs):
    assert not known_model(model, inputs)


def test_with_a_hook_on_all_modules_no_model_is_known():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not known_model(nets.mlp((D, 3)), VECTORS)
    finally:
        handle.remove()
    assert known_model(nets.mlp((D, 3)), VECTORS)


class Unhashable:
    __hash__ = None

    def __call__(self, outputs, targets):
        return outputs.sum(1)


@pytest.mark.parametrize(("loss", "known"), [
    (partial(F.cross_entropy, reduction="none"), True), (nn.CrossEntropyLoss(reduction="none"), True),
    (partial(F.cross_entropy, reduction="none", label_smoothing=0.1), True), (nn.NLLLoss(reduction="none"), True),
    (F.cross_entropy, False), (partial(F.cross_entropy, reduction="mean"), False), (nn.CrossEntropyLoss(), False),
    (partial(F.cross_entropy, reduction="none", weight=torch.ones(3)), False),
    (partial(F.mse_loss, reduction="none"), False),
    (partial(F.cross_entropy, torch.zeros(2, 3), reduction="none"), False), (partial(Unhashable()), False),
    (nn.CrossEntropyLoss(torch.ones(3), reduction="none"), False), (lambda outputs, targets: outputs.sum(1), False),
])  # fmt: skip
def test_losses_of_torch_are_known(loss, known):
    assert known_loss(loss) == known


MIXED = {
    "mean of rows": lambda h, t: (h - h.mean(0)).square().sum(1), "sum of all": lambda h, t: h.sum(1) + h.sum(),
    "softmax of rows": lambda h, t: h.softmax(0).sum(1), "turned": lambda h, t: h.flip(0).sum(1),
    "first row": lambda h, t: h.sum(1) * h[0, 0], "last row, repeated": lambda h, t: (h + h[-1:]).sum(1),
    "rows against rows": lambda h, t: (h[:, :1] - h[:, 0]).square().sum(1),
    "rows by numbers": lambda h, t: h[t.argsort(0)[:, 0]][:, 0],
    "neighbour": lambda h, t: torch.cat([h[1:], h[:1]]).sum(1), "products": lambda h, t: (h @ h.T).sum(1),
    "transposed": lambda h, t: h[:, 0].expand(len(h), -1).sum(1), "a Gram matrix": lambda h, t: (h @ h.T).diagonal(),
    "reshaped rows": lambda h, t: h.view(3, -1).sum(0).repeat(len(h))[: len(h)],
}  # fmt: skip


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", MIXED)
def test_a_loss_that_mixes_rows_is_refused_with_a_known_model(name, statistic):
    model, (x, _) = network("linear", "tanh"), data(40)
    alone = torch.stack([MIXED[name](model(row[None]), row[None])[0] for row in x])
    coupled = not torch.allclose(MIXED[name](model(x), x), alone)
    try:
        result = getattr(gradstats, statistic)(model, MIXED[name], x, x)
    except ValueError:
        return
    assert not coupled
    assert error(result, truth(statistic, model, MIXED[name], x, x)) < EXACT


def swapped(g):
    """On the way back two rows change places."""
    return g if len(g) < 2 else torch.cat([g[1:2], g[:1], g[2:]])


@pytest.mark.parametrize("statistic", STATISTICS)
def test_hooks_inside_a_loss_are_seen(statistic):
    """The pair that the loop checks need not be among the rows that they change."""

    def loss(outputs, targets):
        scaled = outputs * 1.0
        scaled.register_hook(swapped)
        return cross_entropy(scaled, targets)

    model, examples = network("linear", "tanh"), data(40)
    result = getattr(gradstats, statistic)(model, loss, *examples)
    assert error(result, truth(statistic, model, loss, *examples)) < EXACT


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("wrap", [nn.Sequential, lambda model: nn.Sequential(nn.Identity(), Wrapped(model))],
                         ids=["known", "not known"])  # fmt: skip
def test_a_loss_may_write_into_the_outputs(statistic, wrap):
    def loss(outputs, targets):
        return cross_entropy(outputs.sub_(outputs.detach().amax(1, keepdim=True)).mul_(2), targets)

    model, examples = wrap(network("linear", "tanh")), data(40)
    result = getattr(gradstats, statistic)(model, loss, *examples)
    assert error(result, truth(statistic, model, loss, *examples)) < EXACT


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


@pytest.mark.parametrize("statistic", [*STATISTICS, "curvature"])
@pytest.mark.parametrize("kind", COUPLED_LOSSES)
@pytest.mark.parametrize("wrap", [lambda model: model, Wrapped], ids=["known", "not known"])
def test_coupled_losses_are_refused_with_any_model(wrap, kind, statistic):
    with pytest.raises(ValueError, match="couples the examples"):
        getattr(gradstats, statistic)(wrap(network("linear", "tanh")), COUPLED_LOSSES[kind], *data(100))


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("loss", [cross_entropy, lambda outputs, targets: cross_entropy(outputs, targets)],
                         ids=["known loss", "its equal"])  # fmt: skip
def test_what_is_known_changes_no_number(loss, statistic):
    """Nor does anything that is left out where it is known: chance, state, company."""
    model, examples = network("linear", "tanh"), data(70)
    for wrap in (lambda model: model, Wrapped):
        result = getattr(gradstats, statistic)(wrap(model), loss, *examples)
        assert error(result, truth(statistic, model, cross_entropy, *examples)) < EXACT


def only_class_two(outputs, targets):
    """The examples of class 2 feel their company."""
    return cross_entropy(outputs, targets) * (1 + (targets == 2) * outputs.mean())


@pytest.mark.parametrize("statistic", STATISTICS)
def test_full_verification_tries_the_loss_of_every_example(statistic):
    n, (x, y) = 300, data(300)
    tried = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist()[:64]
    left = next(i for i in range(n) if i not in tried)
    y = y % 2
    y[left] = 2
    getattr(gradstats, statistic)(network("linear"), only_class_two, x, y)
    with pytest.raises(ValueError, match=rf"example {left} is .* couples the examples"):
        getattr(gradstats, statistic)(network("linear"), only_class_two, x, y, verify="full")


def test_inputs_that_a_known_model_writes_into_are_left_alone():
    model, (x, y) = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(D, CLASSES)).double(), data(9)
    before = x.clone()
    for statistic in STATISTICS:
        result = getattr(gradstats, statistic)(model, cross_entropy, x, y)
        assert error(result, truth(statistic, model, cross_entropy, before.clone(), y)) < EXACT
    assert torch.equal(x, before)
