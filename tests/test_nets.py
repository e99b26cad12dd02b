"""The experiments' networks are seeded, scaled as they say, and refuse what they cannot build."""

from itertools import combinations, pairwise

import pytest
import torch
from implicitreg import nets
from torch import nn
from torch.nn import functional as F


def test_mlp_is_the_formula_written_out():
    network = nets.mlp((3, 4, 2), seed=5)
    generator = torch.Generator().manual_seed(5)
    W1 = torch.randn(3, 4, generator=generator, dtype=torch.float64) / 3**0.5
    W2 = torch.randn(4, 2, generator=generator, dtype=torch.float64) / 4**0.5
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    torch.testing.assert_close(network(x), torch.tanh(x @ W1) @ W2, rtol=0, atol=1e-15)


def test_relu_mlp_with_a_gain_is_the_formula_written_out():
    network = nets.mlp((3, 4, 2), activation="relu", gain=2.5, seed=5)
    generator = torch.Generator().manual_seed(5)
    W1 = torch.randn(3, 4, generator=generator, dtype=torch.float64) * 2.5 * (2 / 3) ** 0.5
    W2 = torch.randn(4, 2, generator=generator, dtype=torch.float64) * 2.5 * (2 / 4) ** 0.5
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    torch.testing.assert_close(network(x), torch.relu(x @ W1) @ W2, rtol=0, atol=1e-14)


def test_mlp_has_linear_and_tanh_only_and_no_tanh_at_the_end():
    assert [type(layer).__name__ for layer in nets.mlp((64, 16, 8, 10))] == [
        "Linear",
        "Tanh",
        "Linear",
        "Tanh",
        "Linear",
    ]


def test_float32_weights_are_the_float64_weights_rounded():
    for wide, narrow in zip(
        nets.mlp((8, 4, 2)).parameters(), nets.mlp((8, 4, 2), dtype=torch.float32).parameters(), strict=True
    ):
        assert torch.equal(wide.float(), narrow)


@pytest.mark.parametrize(
    "build",
    [
        lambda s: nets.mlp((4, 3), seed=s),
        lambda s: nets.conv((1, 2, 3), 2, size=8, seed=s),
        lambda s: nets.small_conv(2, seed=s),
        lambda s: nets.vgg11(2, width=1, seed=s),
        lambda s: nets.resnet18(2, width=8, seed=s),
    ],
    ids=["mlp", "conv", "small_conv", "vgg11", "resnet18"],
)
def test_the_seed_decides_the_weights(build):
    first = [next(build(seed).parameters()) for seed in (0, 0, 1)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_weights_have_the_variances_of_the_docstring():
    """Relative standard error of a variance from m numbers: sqrt(2/m), here below 0.6 %; 4 of them are allowed."""
    W = nets.mlp((400, 200)).get_parameter("0.weight")
    assert W.var().item() * 400 == pytest.approx(1, abs=4 * (2 / W.numel()) ** 0.5)
    W = nets.conv((64, 128, 8), 10, size=8).get_parameter("0.weight")
    assert W.var().item() * 9 * 64 == pytest.approx(2, abs=8 * (2 / W.numel()) ** 0.5)


@pytest.mark.parametrize(("size", "features"), [(4, 3), (8, 12), (28, 147), (32, 192), (30, 147)])
def test_conv_fits_images_of_any_size(size, features):
    network = nets.conv((2, 2, 3), 5, size=size)
    assert network(torch.rand(6, 2, size, size, dtype=torch.float64)).shape == (6, 5)
    assert network[-1].in_features == features


def test_examples_do_not_interact():
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    network = nets.conv((1, 2, 3), 4, size=8)
    torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: nets.mlp((64,)), ValueError, r"widths = \[64\]: expected at least two"),
        (lambda: nets.mlp((64, 0, 10)), ValueError, r"widths\[1\] = 0: expected an integer >= 1"),
        (lambda: nets.mlp((64, 1.5)), TypeError, r"widths\[1\] = 1.5: expected an integer"),
        (lambda: nets.mlp((2, 2), seed=-1), ValueError, "seed = -1"),
        (lambda: nets.mlp((2, 2), dtype=torch.float16), ValueError, "dtype = torch.float16: expected torch.float32 or"),
        (
            lambda: nets.mlp((2, 2), activation="gelu"),
            ValueError,
            "activation = 'gelu': expected one of 'tanh', 'relu'",
        ),
        (lambda: nets.mlp((2, 2), gain=0), ValueError, "gain = 0"),
        (lambda: nets.small_conv(10, size=15), ValueError, "size = 15: expected an integer >= 16"),
        (lambda: nets.vgg11(10, width=0), ValueError, "width = 0"),
        (lambda: nets.resnet18(10, width=12), ValueError, "width = 12: expected a multiple of 8"),
        (lambda: nets.resnet18(10, norm="layer"), ValueError, "norm = 'layer': expected one of 'group', 'batch'"),
        (lambda: nets.resnet18(10, ghost=4), ValueError, "ghost = 4 with norm = 'group': expected None"),
        (lambda: nets.GhostBatchNorm(1, 0), ValueError, "ghost = 0"),
        (lambda: nets.conv((3, 8), 10, size=32), ValueError, r"channels = \[3, 8\]: expected three"),
        (lambda: nets.conv((3, 8, 8), 10, size=3), ValueError, "size = 3: expected an integer >= 4"),
        (lambda: nets.conv((3, 8, 8), 0, size=8), ValueError, "classes = 0"),
    ],
    ids=[
        "one width",
        "zero width",
        "fraction",
        "seed",
        "half",
        "activation",
        "gain",
        "five pixels",
        "no channel",
        "groups",
        "norm",
        "ghost without batch",
        "no ghost",
        "two channels",
        "small images",
        "no class",
    ],
)
def test_bad_input(build, error, message):
    with pytest.raises(error, match=message):
        build()


# The networks of the images


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def counted(layers):
    """Weights and biases of convolutions and linear layers (in, out, size of the kernel)."""
    return sum(i * o * k * k + o for i, o, k in layers)


def test_small_conv_has_the_parameters_of_the_source():
    assert parameters(nets.small_conv(10)) == counted([(1, 10, 5), (10, 10, 5), (160, 50, 1), (50, 10, 1)]) == 11330


def test_vgg11_has_the_parameters_of_the_source():
    c = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    layers = [*((i, o, 3) for i, o in pairwise(c)), (512, 512, 1), (512, 512, 1), (512, 10, 1)]
    assert parameters(nets.vgg11(10, dtype=torch.float32)) == counted(layers) == 9750922


def test_resnet18_has_the_parameters_of_the_source():
    assert parameters(nets.resnet18(10, norm="batch", dtype=torch.float32)) == 11173962
    assert parameters(nets.resnet18(100, dtype=torch.float32)) == 11173962 + 90 * 513


IMAGES = torch.rand(6, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
BUILDS = {
    "small_conv": lambda **more: nets.small_conv(4, channels=3, size=32, **more),
    "vgg11": lambda **more: nets.vgg11(4, width=4, **more),
    "resnet18": lambda **more: nets.resnet18(4, width=8, **more),
}


@pytest.mark.parametrize("name", BUILDS)
def test_layers_have_the_variances_of_the_docstring(name):
    """A sum of m squares of standard normals: m, and its standard deviation is sqrt(2m)."""
    layers = [m for m in BUILDS[name](seed=3).modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers:
        c, m = 1 if layer is layers[-1] else 2, layer.weight.numel()
        assert abs(layer.weight.square().sum().item() * layer.weight[0].numel() / c - m) < 4 * (2 * m) ** 0.5
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("name", BUILDS)
def test_the_signal_neither_explodes_nor_dies(name):
    assert 0.01 < BUILDS[name]()(IMAGES).std() < 10


def weighted(network, x, y, w):
    """The gradient of the weighted loss, flat."""
    loss = (w * F.cross_entropy(network(x), y, reduction="none")).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


@pytest.mark.parametrize("name", BUILDS)
def test_gradient_of_a_weighted_loss_is_the_weighted_sum_of_the_examples(name):
    network, x, y, w = BUILDS[name](), IMAGES[:4], torch.tensor([0, 1, 2, 3]), torch.tensor([0.5, -0.25, 0.0, 0.75])
    rows = [weighted(network, x[[i]], y[[i]], torch.ones(1)) for i in range(4)]
    together = weighted(network, x, y, w)
    torch.testing.assert_close(together, w.double() @ torch.stack(rows), rtol=0, atol=1e-12 * together.abs().max())


def bias_of_mini_batches(network):
    """The mean of the gradients of all 20 mini-batches of 3 of 6 images, minus that of the full batch, relative."""
    x, y = IMAGES[:, :, ::4, ::4], torch.tensor([0, 1, 2, 3, 0, 1])
    rows = [weighted(network, x[i], y[i], torch.full((3,), 1 / 3)) for i in map(list, combinations(range(6), 3))]
    full = weighted(network, x, y, torch.full((6,), 1 / 6))
    return ((torch.stack(rows).mean(0) - full).norm() / full.norm()).item()


def test_with_batch_norm_mini_batches_are_biased():
    """In eval mode and with group norm the mean is the full gradient; in train mode it is far from it."""
    batch = nets.resnet18(4, width=8, norm="batch")
    assert bias_of_mini_batches(batch) > 0.1
    assert bias_of_mini_batches(batch.eval()) < 1e-12
    assert bias_of_mini_batches(nets.resnet18(4, width=8)) < 1e-12


def test_ghosts_are_batches_of_their_own():
    ghost, plain = (nets.resnet18(4, width=8, norm="batch", ghost=g) for g in (2, None))
    x = IMAGES[:5, :, ::2, ::2]
    blocks = torch.cat([plain(part) for part in (x[:2], x[2:4], x[4:])])
    torch.testing.assert_close(ghost(x), blocks, rtol=0, atol=1e-12)
    torch.testing.assert_close(ghost.eval()(x), plain.eval()(x), rtol=0, atol=1e-12)  # after the same updates
    assert (blocks - plain.train()(x)).abs().max() > 0.01


@pytest.mark.parametrize(
    "build",
    [
        lambda: nets.mlp((3, 4, 2), seed=1),
        lambda: nets.conv((1, 2, 3), 2, size=8, seed=1),
        lambda: nets.small_conv(3, seed=1),
        lambda: nets.vgg11(3, width=2, seed=1),
        lambda: nets.resnet18(3, width=8, seed=1),
        lambda: nets.resnet18(3, width=8, norm="batch", ghost=2, seed=1),
    ],
    ids=["mlp", "conv", "small_conv", "vgg11", "group norm", "ghost batch norm"],
)
def test_building_a_network_neither_moves_nor_reads_the_generator_of_all(build):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = build().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    other = build().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
