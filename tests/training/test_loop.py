"""What training computes, measures and refuses, against plain loops."""

import math
import warnings

import numpy as np
import pytest
import torch
from implicitreg import nets, training
from implicitreg.noise.msgd import Weights, train
from torch import nn
from torch.nn import functional as F

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def problem(n=12, shape=(5,), seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, *shape)), generator.integers(3, size=n)


def flat(model):
    return torch.cat([p.detach().cpu().reshape(-1) for p in model.parameters()])


def go(model, data, test=None, **changes):
    options = {"kind": "sgd", "b": 4, "eta": 0.3, "steps": 6, "progress": False, "device": "cpu"} | changes
    return train(model, data, test, **options)


# What is measured


def test_losses_are_unweighted_means_over_all_examples_in_eval_mode():
    data, test = problem(), problem(7, seed=1)
    model = nn.Sequential(nets.mlp((5, 4)), nn.Dropout(0.5), nets.mlp((4, 3)))
    h = go(model, data, test, kind="gaussian_fisher", chunk=5, evaluate_every=4)
    assert h.step.tolist() == [0, 4, 6]
    assert model.training
    assert model[1].training
    model.eval()
    for name, (x, y) in (("train", data), ("test", test)):
        outputs, y = model(torch.tensor(x)), torch.tensor(y)
        assert h.curves()[f"{name}_loss"][-1] == pytest.approx(F.cross_entropy(outputs, y).item(), abs=1e-12)
        assert h.curves()[f"{name}_accuracy"][-1] == (outputs.argmax(1) == y).double().mean().item()


def test_modules_keep_their_modes_and_gradients_are_gone():
    model = nn.Sequential(nets.mlp((5, 4)), nn.Dropout(0.5).eval(), nets.mlp((4, 3)))
    model[0][0].bias.requires_grad_(False)
    before = model[0][0].bias.clone()
    go(model, problem())
    assert model.training
    assert not model[1].training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model[0][0].bias, before)


def test_without_classes_or_test_examples_there_is_nothing_in_their_place():
    x, _ = problem()
    h = go(nets.mlp((5, 1)), (x, x[:, 0]), loss=lambda outputs, y: (outputs[:, 0] - y).square())
    assert h.train_accuracy is None
    assert h.test_loss is None
    assert h.test_accuracy is None
    assert list(h.curves()) == ["step", "train_loss"]
    assert "train loss" in str(h)
    assert "eta = 0.3" in str(h)
    assert repr(h).startswith("History(step 6, train loss ")
    assert h.settings["n"] == 12


def test_the_default_looks_ten_times_and_at_the_start():
    assert go(nets.mlp((5, 3)), problem(), steps=100).step.tolist() == list(range(0, 101, 10))


# What is computed


def conv(dtype=torch.float64):
    return nets.conv((3, 4, 6), 3, size=8, seed=2, dtype=dtype)


@pytest.mark.parametrize("chunk", [1, 7, None])
@pytest.mark.parametrize("kind", ["gaussian_cov", "sgd"])
def test_images_with_channels_last_in_chunks_are_plain_ones(kind, chunk):
    x, y = problem(20, (3, 8, 8))
    model, plain = conv(), conv()
    go(model, (x, y), kind=kind, chunk=chunk)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    weights, x, y = Weights(kind, 20, 4), torch.tensor(x), torch.tensor(y)
    for t in range(6):
        index, w = weights(t)
        value = (w * F.cross_entropy(plain(x[index]), y[index], reduction="none")).sum()
        for p, g in zip(plain.parameters(), torch.autograd.grad(value, list(plain.parameters())), strict=True):
            p.data -= 0.3 * g
    torch.testing.assert_close(flat(model), flat(plain), rtol=0, atol=1e-12)


def test_bytes_stand_for_numbers_from_0_to_1():
    x, y = np.random.default_rng(0).integers(256, size=(20, 3, 8, 8), dtype=np.uint8), problem(20)[1]
    histories = [go(conv(), (images, y), (images[:5], y[:5])) for images in (x, x / 255)]
    np.testing.assert_allclose(histories[0].test_loss, histories[1].test_loss, rtol=1e-13)
    data = training._data.resident("train", (x, y), torch.float32, torch.device("cpu"))
    assert data.inputs.dtype == torch.uint8
    assert data.take(slice(0, 2))[0].dtype == torch.float32
    assert data.take(torch.tensor([3, 1]))[0].is_contiguous(memory_format=torch.channels_last)


def test_a_schedule_is_a_function_or_a_table():
    factors = [1, 1, 0.5, 0.5, 2, 2]
    paths = []
    for schedule in (lambda t: factors[t], {2: 0.5, 4: 2}, {4: 2.0, 2: 0.5, 0: 1}):
        paths.append(nets.mlp((5, 3)))
        go(paths[-1], problem(), schedule=schedule)
    other = nets.mlp((5, 3))
    go(other, problem())
    assert torch.equal(flat(paths[0]), flat(paths[1]))
    assert torch.equal(flat(paths[0]), flat(paths[2]))
    assert not torch.equal(flat(paths[0]), flat(other))
    (x, y), by_hand = problem(), nets.mlp((5, 3))
    for factor in factors:
        model = nets.mlp((5, 3))
        model.load_state_dict(by_hand.state_dict())
        go(model, (x, y), kind="gd", steps=1, eta=0.3 * factor)
        by_hand = model
    gd = nets.mlp((5, 3))
    go(gd, (x, y), kind="gd", schedule={2: 0.5, 4: 2})
    torch.testing.assert_close(flat(gd), flat(by_hand), rtol=0, atol=1e-13)


def dropout():
    return nn.Sequential(nets.mlp((5, 8), seed=3), nn.Dropout(0.5), nets.mlp((8, 3), seed=4))


def test_chance_in_the_model_belongs_to_seed_and_step_and_the_generator_outside_stays():
    models = [dropout() for _ in range(3)]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        go(model, problem(), kind="gd", seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(3)
        state = torch.get_rng_state()
    assert torch.equal(flat(models[0]), flat(models[1]))
    assert not torch.equal(flat(models[0]), flat(models[2]))


def test_unused_parameters_stay():
    model = nn.ModuleDict({"used": nets.mlp((5, 3)), "unused": nets.mlp((5, 3))})
    model.forward = lambda x: model["used"](x)
    before = flat(model["unused"])
    go(model, problem())
    assert torch.equal(flat(model["unused"]), before)


def test_bfloat16_keeps_parameters_losses_and_sums_in_float32():
    x, y = problem(200, (3, 8, 8))
    seen = set()

    def loss(outputs, y):
        seen.add(outputs.dtype)
        return F.cross_entropy(outputs, y, reduction="none")

    start, models = flat(conv(torch.float32)), {}
    for precision in ("float32", "bfloat16"):
        models[precision] = conv(torch.float32)
        go(models[precision], (x, y), kind="gd", steps=1, precision=precision, loss=loss)
    assert seen == {torch.float32}
    exact, rounded = (flat(model) - start for model in models.values())
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.05
    with pytest.raises(ValueError, match="precision = 'bfloat16': expected one of float32"):
        go(conv(), (x, y), precision="bfloat16")


def test_batch_normalisation_is_warned_of_and_group_normalisation_is_not():
    x, y = problem(12, (3, 8, 8))
    norms = {"batch": nn.BatchNorm2d(4, dtype=torch.float64), "group": nn.GroupNorm(2, 4, dtype=torch.float64)}
    for name, norm in norms.items():
        model = nn.Sequential(conv()[0], norm, *conv()[1:])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            go(model, (x, y))
        assert [w.category for w in caught] == ([UserWarning] if name == "batch" else [])
        assert all("examples interact" in str(w.message) and w.filename == __file__ for w in caught)
    norms["batch"].eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        go(nn.Sequential(conv()[0], norms["batch"], *conv()[1:]), (x, y))


# What goes wrong


def first_bad_step(eta):
    """Where plain SGD has a loss that is no number."""
    (x, y), model, weights = problem(), nets.mlp((5, 3)), Weights("sgd", 12, 4)
    x, y = torch.tensor(x), torch.tensor(y)
    for t in range(1000):
        index, w = weights(t)
        value = (w * (model(x[index]) - y[index, None]).square().sum(1)).sum()
        if not math.isfinite(value.item()):
            return t
        for p, g in zip(model.parameters(), torch.autograd.grad(value, list(model.parameters())), strict=True):
            p.data -= eta * g
    return None


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_a_loss_that_is_no_number_ends_the_run_and_its_step_is_named(every):
    (x, y), eta = problem(), 100.0
    t = first_bad_step(eta)
    assert t > 7
    where = f"at step {t}" if every > 1 else f"at step {t}|train loss is .* at step"
    with pytest.raises(FloatingPointError, match=f"{where}, with eta = 100: .*smaller eta"):
        go(nets.mlp((5, 3)), (x, y.astype(float)), eta=eta, steps=1000, evaluate_every=every,
           loss=lambda outputs, y: (outputs - y[:, None]).square().sum(1))  # fmt: skip


class Exhausted(nn.Module):
    """Needs the memory of ``most`` examples, from a call on."""

    def __init__(self, most, calls):
        super().__init__()
        self.inner, self.most, self.calls = nets.mlp((5, 3)), most, calls

    def forward(self, x):
        self.calls -= self.training
        if self.training and self.calls < 0 and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return self.inner(x)


def test_too_large_a_chunk_is_said_and_the_model_holds_the_last_step():
    model, other = Exhausted(4, 5 * 2), nets.mlp((5, 3))  # two chunks a step
    with pytest.raises(torch.OutOfMemoryError, match=r"chunk = 8 examples .*try chunk = 4 .*20.00 GiB"):
        go(model, problem(), kind="gaussian_cov", chunk=8)
    go(other, problem(), kind="gaussian_cov", chunk=8, steps=5)
    assert torch.equal(flat(model), flat(other))
    assert all(p.grad is None for p in model.parameters())
    go(Exhausted(4, 0), problem(), kind="gaussian_cov", chunk=4)


X, Y = problem()
MEAN = {"loss": lambda outputs, y: F.cross_entropy(outputs, y)}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"data": X}, TypeError, "train is a ndarray: expected a pair"),
        ({"data": (X, Y[:5])}, ValueError, "train has 12 inputs and 5 targets"),
        ({"data": ([1.0], Y)}, TypeError, "inputs of train is a list"),
        ({"data": (X.astype(int), Y)}, TypeError, "inputs of train has dtype torch.int64: expected floats, or uint8"),
        ({"data": (X > 0, Y)}, TypeError, "inputs of train has dtype bool"),
        ({"data": (np.where(X > 1, np.nan, X), Y)}, ValueError, "inputs of train has entries that are not finite"),
        ({"data": (X[:0], Y[:0])}, ValueError, "n = 0"),
        ({"test": (X[:0], Y[:0])}, ValueError, "at least one row"),
        ({"data": (X, Y + 1)}, ValueError, "targets of train are classes from 1 to 3: expected 0 to 2"),
        ({"test": (X, Y - 1)}, ValueError, "targets of test are classes from -1 to 1"),
        ({"eta": 0}, ValueError, "eta = 0: expected a finite number > 0"),
        ({"steps": 0}, ValueError, "steps = 0"),
        ({"chunk": 0}, ValueError, "chunk = 0"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every = 0"),
        ({"seed": -1}, ValueError, "seed = -1"),
        ({"device": "tpu"}, ValueError, "device = 'tpu': expected 'auto', 'cpu'"),
        ({"precision": "half"}, ValueError, "precision = 'half': expected 'float32'"),
        ({"precision": "float32"}, ValueError, "model has parameters of float64, precision = 'float32'"),
        ({"schedule": 0.5}, TypeError, "schedule = 0.5: expected a callable or a mapping"),
        ({"schedule": {0: -1}}, ValueError, r"schedule\[0\] = -1"),
        ({"schedule": lambda t: math.nan}, ValueError, r"schedule\(0\) = nan"),
        (MEAN, ValueError, r"loss returns \(\) for 1 examples: expected \(1,\)"),
        ({"model": "m"}, TypeError, "model is a str"),
        ({"model": nets.mlp((4, 3))}, ValueError, r"model fails for inputs of shape \(1, 5\)"),
        ({"loss": lambda o, y: F.mse_loss(o, y.view(-1, 7), reduction="none")}, ValueError, "loss fails for targets"),
        ({"loss": lambda o, y: 1.0}, ValueError, "loss returns float for 1 examples"),
        ({"loss": lambda o, y: o.detach().sum(1)}, ValueError, "loss does not depend on the parameters"),
        ({"model": nn.Flatten()}, ValueError, "no parameters with requires_grad"),
        ({"model": nets.mlp((5, 3)).half()}, ValueError, "model has parameters of float16"),
        ({"model": nn.Sequential(nets.mlp((5, 4)), nets.mlp((4, 3), dtype=torch.float32))}, ValueError, "float32, f"),
    ],
)  # fmt: skip
def test_errors_name_argument_value_expectation(changes, error, words):
    arguments = {"model": nets.mlp((5, 3)), "data": (X, Y)} | changes
    with pytest.raises(error, match=words):
        go(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is for machines without a CUDA device")
def test_cuda_without_a_device_is_refused():
    with pytest.raises(ValueError, match="device = 'cuda': expected 'cpu' or 'auto'"):
        go(nets.mlp((5, 3)), problem(), device="cuda")


def test_run_takes_weights_or_a_direction():
    for how in ({}, {"weights": lambda t: ([0], [1.0]), "direction": print}):
        with pytest.raises(TypeError, match="either weights or direction"):
            training.run(nets.mlp((5, 3)), problem(), eta=0.1, steps=1, **how)
    with pytest.raises(ValueError, match=r"weights gives shapes \(2,\) and \(1,\)"):
        training.run(nets.mlp((5, 3)), problem(), weights=lambda t: ([0, 1], [1.0]), eta=0.1, steps=1, progress=False)


# On a GPU


@NO_CUDA
@pytest.mark.parametrize("kind", ["gaussian_cov", "sgd", "bernoulli", "minibatch_cov", "gld_iso"])
def test_the_gpu_computes_what_the_cpu_does(kind):
    x, y = np.random.default_rng(0).integers(256, size=(40, 3, 8, 8), dtype=np.uint8), problem(40)[1]
    models = {}
    for device in ("cpu", "cuda") if kind != "gld_iso" else ("cuda",):  # whose normal numbers are the device's
        models[device] = conv()
        h = go(models[device], (x, y), (x, y), kind=kind, B=10, device=device)
        assert np.isfinite(h.test_loss).all()
    if kind != "gld_iso":
        torch.testing.assert_close(*map(flat, models.values()), rtol=0, atol=1e-10)


@NO_CUDA
def test_bfloat16_on_the_gpu_is_unbiased_enough():
    x, y = problem(400, (3, 8, 8))
    start, models = flat(conv(torch.float32)), {}
    for precision in ("float32", "bfloat16"):
        models[precision] = conv(torch.float32)
        go(models[precision], (x, y), kind="gd", steps=1, precision=precision, device="cuda")
    exact, rounded = (flat(model) - start for model in models.values())
    assert (rounded - exact).norm() / exact.norm() < 0.05


@NO_CUDA
def test_the_gpu_generator_outside_stays_and_dropout_repeats():
    state, models = torch.cuda.get_rng_state(), [dropout(), dropout()]
    for model in models:
        go(model, problem(), device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), state)
    torch.testing.assert_close(*map(flat, models), rtol=0, atol=1e-12)
