"""The experiments' networks are seeded, scaled as they say, and refuse what they cannot build."""

import pytest
import torch
from implicitreg import nets


def test_mlp_is_the_formula_written_out():
    network = nets.mlp((3, 4, 2), seed=5)
    generator = torch.Generator().manual_seed(5)
    W1 = torch.randn(3, 4, generator=generator, dtype=torch.float64) / 3**0.5
    W2 = torch.randn(4, 2, generator=generator, dtype=torch.float64) / 4**0.5
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    torch.testing.assert_close(network(x), torch.tanh(x @ W1) @ W2, rtol=0, atol=1e-15)


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
    "build", [lambda s: nets.mlp((4, 3), seed=s), lambda s: nets.conv((1, 2, 3), 2, size=8, seed=s)]
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
        (lambda: nets.conv((3, 8), 10, size=32), ValueError, r"channels = \[3, 8\]: expected three"),
        (lambda: nets.conv((3, 8, 8), 10, size=3), ValueError, "size = 3: expected an integer >= 4"),
        (lambda: nets.conv((3, 8, 8), 0, size=8), ValueError, "classes = 0"),
    ],
    ids=["one width", "zero width", "fraction", "seed", "half", "two channels", "small images", "no class"],
)
def test_bad_input(build, error, message):
    with pytest.raises(error, match=message):
        build()
