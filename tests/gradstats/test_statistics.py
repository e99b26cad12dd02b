"""Every statistic against the loop over examples, on models that are easy and on models made to mislead."""

from dataclasses import fields
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from gradstats_cases import GHOST, LOOP, PLAIN, VMAP, Example, build, cross_entropy, mlp, squared_error
from implicitreg import gradstats
from implicitreg.gradstats import _calls, _copy, _ghost, _rows, _sample, naive
from torch import nn

STATISTICS = ["moments", "grad_trace", "gram", "per_example", "curvature"]
CURVED = ["mlp", "one linear layer", "frozen bias", "long sequences", "tied weights", "layer norm", "branching"]
WRONG_IN_TORCH = "weight norm"  # its second derivatives
EXACT = 1e-12  # float64: sums of some thousands of products, relative to the largest entry


def values(result):
    """The tensors of a result."""
    if isinstance(result, torch.Tensor):
        return {"": result}
    return {field.name: getattr(result, field.name) for field in fields(result) if field.name != "n"}


def largest_error(result, expected):
    """Over the fields; relative to the largest entry, or to the scale of one where that is small."""
    pairs = [(a, values(expected)[name]) for name, a in values(result).items()]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in pairs)


def method_of(example):
    with _sample.entered(*example.arguments) as sample:
        copy = _copy.copied(sample, verify=True)
        for name, method in {GHOST: _ghost.Ghost, VMAP: _rows.Vectorised, LOOP: _rows.Loop}.items():
            try:
                method(copy).moments(None)
            except _calls.Unfit:
                continue
            return name


CASES = [
    pytest.param(statistic, name, id=f"{statistic}-{name}")
    for statistic in STATISTICS
    for name in (CURVED if statistic == "curvature" else PLAIN)
    if (statistic, name) != ("grad_trace", WRONG_IN_TORCH)
]


@pytest.mark.parametrize(("statistic", "name"), CASES)
def test_statistic_equals_the_loop_over_examples(statistic, name, device):
    example = build(name, device=device)
    result = getattr(gradstats, statistic)(*example.arguments)
    expected = getattr(naive, statistic)(*example.arguments)
    assert largest_error(result, expected) < EXACT
    assert all(a.dtype == torch.float64 and a.device.type == device for a in values(result).values())


@pytest.mark.parametrize("name", [name for name, (_, method) in PLAIN.items() if method])
def test_each_model_gets_its_method(name):
    example = build(name)
    assert method_of(example) == example.method


@pytest.mark.parametrize("chunk_size", [1, 4, 6, 100])
@pytest.mark.parametrize("name", ["mlp", "long sequences", "conv, groups", "layer norm", "branching"])
@pytest.mark.parametrize("statistic", ["moments", "grad_trace", "gram"])
def test_chunks_do_not_matter(statistic, name, chunk_size):
    example = build(name)
    result = getattr(gradstats, statistic)(*example.arguments, chunk_size=chunk_size)
    assert largest_error(result, getattr(naive, statistic)(*example.arguments)) < EXACT


@pytest.mark.parametrize("block", [1, 200])
@pytest.mark.parametrize(
    "name", ["long sequences", "conv, oblong everything", "conv, circle", "conv, padding, pooling"]
)
def test_blocks_within_a_layer_do_not_matter(name, block, monkeypatch):
    monkeypatch.setattr("implicitreg.gradstats._layers.CACHED", block)
    example = build(name)
    for statistic in ("moments", "grad_trace", "gram"):
        result = getattr(gradstats, statistic)(*example.arguments)
        assert largest_error(result, getattr(naive, statistic)(*example.arguments)) < EXACT


def test_token_ids_may_be_integers(device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    tokens = torch.randint(7, (5, 3))
    example = Example(model.to(device, torch.float64), cross_entropy, tokens.to(device), torch.arange(5).to(device) % 3)
    for statistic in STATISTICS:
        result = getattr(gradstats, statistic)(*example.arguments)
        assert largest_error(result, getattr(naive, statistic)(*example.arguments)) < EXACT
    assert method_of(example) == VMAP


def test_targets_may_be_real_vectors(device):
    example = build("mlp", device=device)
    targets = torch.randn(6, 3, dtype=torch.float64, device=device)
    arguments = example.model, squared_error, example.inputs, targets
    for statistic in STATISTICS:
        result = getattr(gradstats, statistic)(*arguments)
        assert largest_error(result, getattr(naive, statistic)(*arguments)) < EXACT


def test_weight_decay_inside_the_loss_is_seen():
    example = build("mlp")
    weight = example.model[0].weight

    def decayed(outputs, targets):
        return cross_entropy(outputs, targets) + 1e-6 * (weight**2).sum()

    arguments = example.model, decayed, example.inputs, example.targets
    assert method_of(Example(*arguments)) == LOOP
    for statistic in STATISTICS:
        result = getattr(gradstats, statistic)(*arguments)
        assert largest_error(result, getattr(naive, statistic)(*arguments)) < EXACT


def test_mean_is_the_gradient_of_the_mean_loss():
    example = build("conv, groups")
    loss = cross_entropy(example.model(example.inputs), example.targets).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(example.model.parameters()))])
    assert torch.allclose(gradstats.moments(*example.arguments).mean, expected, rtol=0, atol=1e-14)


def test_grad_trace_is_the_derivative_of_the_trace():
    """Central differences along a random direction; their error is of order h², here 1e-9."""
    example = build("mlp")
    theta = nn.utils.parameters_to_vector(example.model.parameters()).detach()
    v, h = torch.randn(theta.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(1)), 1e-5

    def trace(shift):
        nn.utils.vector_to_parameters(theta + shift * v, example.model.parameters())
        return gradstats.moments(*example.arguments).trace

    difference = (trace(h) - trace(-h)) / (2 * h)
    trace(0.0)
    slope = gradstats.grad_trace(*example.arguments) @ v
    assert abs(slope - difference) < 1e-7 * abs(slope)
    assert abs(slope * 5 / 6 - difference) > 0.1 * abs(slope)  # 1/n in place of 1/(n-1)


def test_frozen_parameters_are_no_coordinates():
    example = build("frozen first layer")
    assert gradstats.moments(*example.arguments).mean.shape == (4 * 3 + 3,)


def test_the_gram_matrix_knows_the_moments():
    example = build("conv, padding, pooling")
    moments, from_gram = gradstats.moments(*example.arguments), gradstats.from_gram(gradstats.gram(*example.arguments))
    assert torch.allclose(moments.trace, from_gram.trace, rtol=1e-12)
    assert torch.allclose(moments.sq_norm, from_gram.sq_norm, rtol=1e-11)


@pytest.mark.parametrize("module", [gradstats, naive], ids=["fast", "naive"])
def test_the_gram_matrix_of_one_example(module):
    """The gradient of (w . x + b)² / 2 at w = (1, 2), b = 3, x = (3, -4) is -2 (3, -4, 1)."""
    model = nn.Linear(2, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.bias.fill_(3.0)
    x = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    assert module.gram(model, lambda outputs, _: outputs[:, 0] ** 2 / 2, x, x).tolist() == [[4 * 26.0]]


def test_results_are_detached_and_leave_nothing_behind():
    example = build("conv, padding, pooling")
    with torch.no_grad():
        results = [getattr(gradstats, statistic)(*example.arguments) for statistic in STATISTICS]
    assert not any(a.requires_grad for result in results for a in values(result).values())
    assert all(p.grad is None for p in example.model.parameters())
    assert not any(module._forward_hooks for module in example.model.modules())


@pytest.mark.parametrize("statistic", ["grad_trace", "curvature"])
def test_a_false_second_derivative_of_torch_is_refused(statistic):
    with pytest.raises(ValueError, match="weight_norm, whose second derivatives torch computes wrongly"):
        getattr(gradstats, statistic)(*build(WRONG_IN_TORCH).arguments)


# --- float32 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "conv, padding, pooling", "long sequences", "layer norm", "branching"])
@pytest.mark.parametrize("statistic", STATISTICS[:-1])
def test_float32_is_float64_rounded(statistic, name, device):
    """Products of float32 numbers summed a few thousand times: errors of about 1e-6, at most 2e-5 here."""
    single, double = build(name, torch.float32, device), build(name, torch.float32, device)
    exact = getattr(naive, statistic)(double.model.double(), double.loss, double.inputs.double(), double.targets)
    result = getattr(gradstats, statistic)(*single.arguments)
    assert {name: a.dtype for name, a in values(result).items()} == dict.fromkeys(values(result), torch.float32)
    result = {name: a.double() for name, a in values(result).items()}
    assert max(largest_error(a, values(exact)[name]) for name, a in result.items()) < 2e-5


def nearly_equal_gradients(dtype, spread, layers=GHOST, n=50):
    """Inputs that differ by ``spread``, far from the targets: |gbar|² is 1/spread² times tr S, or so."""
    torch.manual_seed(3)
    model = mlp() if layers == GHOST else nn.Sequential(mlp(), nn.PReLU(3))
    inputs = (1 + spread * torch.randn(n, 5)).float()  # both precisions see the same numbers
    return model.to(dtype), squared_error, inputs.to(dtype), torch.full((n, 3), 3.0, dtype=dtype)


@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("layers", [GHOST, VMAP])
def test_a_large_mean_costs_the_trace_no_digits(layers, spread):
    """In float32 |g_i|² has 7 digits, so that a difference of sums keeps one at spread 1e-3; 1e-3 is what we claim."""
    given = nearly_equal_gradients(torch.float32, spread, layers)
    exact = naive.moments(*nearly_equal_gradients(torch.float64, spread, layers))
    assert method_of(Example(*given)) == layers
    assert exact.n * exact.mean @ exact.mean > exact.trace / spread
    moments = gradstats.moments(*given, chunk_size=20)
    assert abs(float(moments.trace) / float(exact.trace) - 1) < 1e-3
    assert abs(float(moments.sq_norm) / float(exact.sq_norm) - 1) < 1e-5


def test_without_care_the_trace_would_be_lost(monkeypatch):
    monkeypatch.setattr("implicitreg.gradstats._ghost.CANCELLED", float("inf"))
    moments = gradstats.moments(*nearly_equal_gradients(torch.float32, 1e-3))
    exact = naive.moments(*nearly_equal_gradients(torch.float64, 1e-3))
    assert abs(float(moments.trace) / float(exact.trace) - 1) > 1e-2


# --- refusals -----------------------------------------------------------------------------------------------------


class WithMean(nn.Module):
    """Subtracts the mean of the batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x):
        return self.linear(x - x.mean(0))


class Noisy(WithMean):
    def forward(self, x):
        return self.linear(x + 0.1 * torch.randn_like(x))


def contrastive(outputs, targets):
    return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)), reduction="none")


def divided(outputs, targets):
    return cross_entropy(outputs, targets) / len(outputs)


def with_nan_gradient(outputs, targets):
    return cross_entropy(outputs, targets) + torch.sqrt((outputs * 0).abs().sum(1))


def arguments(**changes):
    example = build("mlp")
    given = {"model": example.model, "loss": cross_entropy, "inputs": example.inputs, "targets": example.targets}
    return given | changes


def double(*layers):
    return nn.Sequential(*layers).double()


X = torch.ones(6, 5, dtype=torch.float64)
BAD = {
    "no module": ({"model": len}, TypeError, "model is a builtin_function_or_method: expected a torch.nn.Module"),
    "no loss": ({"loss": 3}, TypeError, "loss = 3: expected a callable"),
    "no tensor": ({"inputs": X.numpy()}, TypeError, "inputs is a ndarray: expected a torch.Tensor"),
    "scalar loss": ({"loss": F.cross_entropy}, ValueError, r"loss returns shape \(\).*\(1,\).*reduction='none'"),
    "loss is no tensor": ({"loss": lambda o, t: 1.0}, TypeError, "loss returns a float"),
    "loss of other dtype": ({"loss": lambda o, t: o.sum(1).float()}, ValueError, "loss returns dtype torch.float32"),
    "loss without graph": ({"loss": lambda o, t: o.detach().sum(1)}, ValueError, "does not depend on the parameters"),
    "empty": ({"inputs": X[:0], "targets": X[:0, 0]}, ValueError, r"inputs has shape \(0, 5\)"),
    "one example": ({"inputs": X[:1], "targets": torch.tensor([0])}, ValueError, "inputs has 1 rows.*at least [23]"),
    "other count": ({"targets": torch.tensor([0, 1])}, ValueError, "inputs has 6 rows and targets 2"),
    "nan input": ({"inputs": X * float("nan")}, ValueError, "inputs has entries that are not finite"),
    "nan loss": ({"loss": lambda o, t: o.sum(1) * float("nan")}, ValueError, r"the loss of example \d is not finite"),
    "nan gradient": ({"loss": with_nan_gradient}, ValueError, "not finite"),
    "complex": ({"inputs": X + 1j}, ValueError, "inputs has dtype torch.complex128"),
    "other dtype": ({"inputs": X.float()}, ValueError, "inputs has dtype torch.float32 and model torch.float64"),
    "targets of other dtype": ({"targets": X.float()}, ValueError, "targets has dtype torch.float32"),
    "integers into a linear layer": ({"inputs": X.long()}, ValueError, "model or loss fails.*torch.int64"),
    "wrong width": ({"inputs": X[:, :4]}, ValueError, r"model or loss fails for inputs of shape \(1, 4\)"),
    "half": ({"model": mlp().half(), "inputs": X.half()}, ValueError, "model has dtype torch.float16"),
    "mixed parameters": ({"model": nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3).double())}, ValueError,
                         "torch.float32 on cpu, torch.float64 on cpu: expected one dtype"),
    "nothing trainable": ({"model": mlp().double().requires_grad_(False)}, ValueError, "no parameters with requires_"),
    "batch norm": ({"model": double(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))}, ValueError,
                   r"model\.1, BatchNorm1d, normalises with the statistics of the batch.*eval"),
    "batch norm without statistics": (
        {"model": double(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).eval()},
        ValueError, "normalises with the statistics of the batch"),
    "instance norm with statistics": (
        {"model": double(nn.Unflatten(1, (1, 5)), nn.InstanceNorm1d(1, track_running_stats=True), nn.Flatten(),
                         nn.Linear(5, 3))}, ValueError, "changes its running statistics"),
    "dropout": ({"model": double(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))}, ValueError,
                r"model\.1, Dropout, draws a new mask.*eval"),
    "mean of the batch": ({"model": WithMean().double()}, ValueError, "something couples the examples"),
    "random": ({"model": Noisy().double()}, ValueError, "is random"),
    "contrastive loss": ({"loss": contrastive}, ValueError, "something couples the examples"),
    "loss over n": ({"loss": divided}, ValueError, "division by the batch size"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("module", [gradstats, naive], ids=["fast", "naive"])
def test_bad_input_is_refused(module, statistic, fault):
    changes, error, message = BAD[fault]
    if fault == "one example" and statistic in ("per_example", "gram"):
        pytest.skip("one row is fine")
    with pytest.raises(error, match=message):
        getattr(module, statistic)(**arguments(**changes))


def test_a_fitted_network_is_not_refused_for_its_rounding():
    """In float32, outputs near 1e3 and losses near 0: the losses' digits are noise, the examples do not interact."""
    torch.manual_seed(0)
    model, inputs = nn.Linear(50, 3), 1e3 * torch.randn(40, 50)
    given = model, cross_entropy, inputs, model(inputs).argmax(1)
    assert gradstats.moments(*given).n == naive.moments(*given).n == 40


def test_a_coupling_of_tiny_losses_is_seen():
    torch.manual_seed(0)
    given = WithMean(), lambda outputs, _: 1e-8 * (outputs**2).sum(1), 1e-3 * torch.randn(6, 5), torch.zeros(6)
    with pytest.raises(ValueError, match="something couples the examples"):
        gradstats.moments(*given)


@pytest.mark.parametrize(("chunk_size", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
@pytest.mark.parametrize("statistic", ["moments", "grad_trace", "gram"])
def test_bad_chunk_size_is_refused(statistic, chunk_size, error):
    with pytest.raises(error, match="chunk_size"):
        getattr(gradstats, statistic)(**arguments(), chunk_size=chunk_size)


def test_two_examples_are_too_few_for_curvature():
    given = arguments()
    given |= {"inputs": given["inputs"][:2], "targets": given["targets"][:2]}
    with pytest.raises(ValueError, match="at least 3"):
        gradstats.curvature(**given)


def test_autocast_is_refused():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast is enabled"):
        gradstats.moments(**arguments())


def test_dropout_with_probability_zero_is_fine():
    model = double(nn.Linear(5, 4), nn.Dropout(0.0), nn.Linear(4, 3))
    assert gradstats.moments(**arguments(model=model)).n == 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_devices_are_refused():
    with pytest.raises(ValueError, match="inputs is on cuda"):
        gradstats.moments(**arguments(inputs=arguments()["inputs"].cuda()))


def test_partial_losses_are_losses():
    weighted = partial(F.cross_entropy, reduction="none", label_smoothing=0.1)
    given = arguments(loss=weighted)
    assert largest_error(gradstats.moments(**given), naive.moments(**given)) < EXACT
