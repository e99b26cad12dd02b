"""No statistic is silently wrong: it is that of the examples alone, whatever a model does inside, or it is refused."""

import random
import threading
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import ensembles, gradstats, nets
from implicitreg.gap import penalties, precondition
from implicitreg.gradstats import _copy, naive
from implicitreg.gradstats._calls import close
from torch import nn
from unruly import (
    CHANCE,
    COUPLED,
    COUPLED_LOSSES,
    HONEST,
    STATE,
    Block,
    ByArray,
    Checkpointed,
    Counting,
    D,
    Overwriting,
    cross_entropy,
    data,
    error,
    network,
    rows,
    tensors,
    truth,
)

STATISTICS = ["moments", "grad_trace", "gram", "per_example"]
CHUNKED = STATISTICS[:-1]
EXACT = 1e-10  # float64, a few layers, dozens of examples
REFUSED = ValueError, TypeError


# --- right ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("block", HONEST)
def test_what_a_model_does_inside_does_not_matter(block, statistic):
    """Seven examples and eight, one more than which is a multiple of four: models that split, pad, or look at n."""
    model = network("linear", block)
    for n in (7, 8, 13):
        expected = truth(statistic, model, cross_entropy, *data(n))
        assert error(getattr(gradstats, statistic)(model, cross_entropy, *data(n)), expected) < EXACT


@pytest.mark.parametrize("chunk_size", [5, 64])
@pytest.mark.parametrize("statistic", CHUNKED)
@pytest.mark.parametrize("block", ["sorted", "micro-batches", "early exit", "parity", "mixed", "style"])
def test_chunks_do_not_matter(block, statistic, chunk_size):
    """More examples than a copy has."""
    model = network("linear", block)
    expected = truth(statistic, model, cross_entropy, *data(70))
    result = getattr(gradstats, statistic)(model, cross_entropy, *data(70), chunk_size=chunk_size)
    assert error(result, expected) < EXACT


@st.composite
def compositions(draw):
    """Up to four blocks, of which some models have one that is not to be had; n, the statistic, the chunks."""
    blocks = draw(st.lists(st.sampled_from(sorted(HONEST)), min_size=1, max_size=3))
    if draw(st.integers(0, 3)) == 3:
        blocks.insert(draw(st.integers(0, len(blocks))), draw(st.sampled_from(sorted(CHANCE | STATE | COUPLED))))
    n, statistic = draw(st.sampled_from([2, 3, 5, 8, 11])), draw(st.sampled_from(STATISTICS))
    chunks = draw(st.sampled_from([{}, {"chunk_size": 1}, {"chunk_size": 3}])) if statistic in CHUNKED else {}
    return blocks, n, statistic, chunks


@settings(max_examples=300)
@given(compositions(), st.sampled_from([cross_entropy, cross_entropy, cross_entropy, *COUPLED_LOSSES.values()]))
def test_any_composition_is_right_or_refused(composition, loss):
    blocks, n, statistic, chunks = composition
    model, examples = network(*blocks), data(n)
    try:
        result = getattr(gradstats, statistic)(model, loss, *examples, **chunks)
    except REFUSED:
        assert loss is not cross_entropy or not set(blocks) <= HONEST.keys()
    else:
        assert error(result, truth(statistic, model, loss, *examples)) < EXACT


def test_the_penalty_of_a_model_with_micro_batches_is_that_of_its_examples():
    model, (x, y), eta, n = network("micro-batches"), data(64), 0.1, 16
    expected = (truth("moments", model, cross_entropy, x, y)[0]
                + eta / 4 * (1 / n - 1 / 64) * truth("grad_trace", model, cross_entropy, x, y)[0])  # fmt: skip
    got = penalties.modified_gradient(model, cross_entropy, x, y, eta=eta, batch_size=n)
    assert error(got, [expected]) < EXACT


@pytest.mark.parametrize("shapes", [[()], [(), (2,), ()]], ids=["one number", "numbers and vectors"])
def test_parameters_may_be_numbers(shapes):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scales = nn.ParameterList([torch.full(shape, 1.3, dtype=torch.float64) for shape in shapes])

        def forward(self, x):
            for scale in self.scales:
                x = torch.tanh(x * scale.sum())
            return x[:, :3]

    model, (x, y) = Scaled(), data(9)
    for statistic in STATISTICS:
        got = getattr(gradstats, statistic)(model, cross_entropy, x, y)
        assert error(got, truth(statistic, model, cross_entropy, x, y)) < EXACT
    assert float(gradstats.curvature(model, cross_entropy, x, y).kappa3) == pytest.approx(
        float(naive.curvature(model, cross_entropy, x, y).kappa3), rel=1e-9)  # fmt: skip


def test_a_preconditioner_takes_parameters_that_are_numbers():
    """One step along P g, with P from the rows."""
    model, (x, y) = network("temperature"), data(20)
    optimizer = precondition.InverseCovariance(model.parameters(), lr=0.1, rank=3, rho=0.5)
    optimizer.refresh(model, cross_entropy, x, y)
    P = precondition.low_rank(rows(model, cross_entropy, x, y), rank=3, rho=0.5)
    before, g = ensembles.flatten(model), rows(model, cross_entropy, x, y).mean(0)
    cross_entropy(model(x), y).mean().backward()
    optimizer.step()
    assert torch.allclose(ensembles.flatten(model), before - 0.1 * P.apply(g), rtol=0, atol=1e-12)


@pytest.mark.parametrize("statistic", [*STATISTICS, "curvature"])
def test_attention_is_differentiated_twice(statistic):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(2, 1, 2, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Unflatten(1, (3, 2)), layer, nn.Flatten(), nn.Linear(6, 3)).double()
    got = getattr(gradstats, statistic)(model, cross_entropy, *data(4))
    if statistic == "curvature":
        expected = naive.curvature(model, cross_entropy, *data(4))
        assert float(got.G_grad_trace) == pytest.approx(float(expected.G_grad_trace), rel=1e-9)
    else:
        assert error(got, truth(statistic, model, cross_entropy, *data(4))) < EXACT


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", CHANCE)
def test_chance_is_always_found(block):
    """Most of these models give, on most calls, what they would give without chance."""
    for seed in range(25):
        x, y = data(20, seed)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        with pytest.raises(ValueError, match="random"):
            gradstats.moments(network("linear", block), cross_entropy, x, y)


@pytest.mark.parametrize("block", STATE)
@pytest.mark.parametrize("statistic", [*STATISTICS, "curvature"])
def test_a_state_that_changes_is_found_and_put_back(block, statistic):
    model = network("linear", block)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"changes its state at every call \((mean|_u|_v|weight_u)"):
        getattr(gradstats, statistic)(model, cross_entropy, *data(9))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def coupled(kind):
    """A model and a loss of which one couples the examples."""
    if kind in COUPLED:
        return network("linear", kind), cross_entropy
    return network("linear", "tanh"), COUPLED_LOSSES[kind]


@pytest.mark.parametrize("statistic", ["moments", "per_example"])
@pytest.mark.parametrize("kind", [*COUPLED, *COUPLED_LOSSES])
def test_coupling_is_found_in_99_of_100_data_sets(kind, statistic):
    """And, if it is not, the numbers are still those of the examples alone."""
    found, model, loss = 0, *coupled(kind)
    for seed in range(100):
        examples = data((16, 40, 100, 600)[seed % 4], seed)
        try:
            result = getattr(gradstats, statistic)(model, loss, *examples)
        except ValueError:
            found += 1
        else:
            assert error(result, truth(statistic, model, loss, *examples)) < EXACT
    assert found >= 99


def test_the_ends_may_be_equal():
    """Two blank images: where the first and the last example stand for all, their mean is theirs."""
    x, y = data(12)
    x[-1], y[-1] = x[0], y[0]
    with pytest.raises(ValueError, match="couples the examples"):
        gradstats.moments(network("centred"), cross_entropy, x, y)


class InMultitudes(Block):
    """More than 64 examples interact."""

    def forward(self, x):
        return self.a(x if len(x) <= 64 else x - 0.1 * x.mean(0))


@pytest.mark.parametrize("statistic", CHUNKED)
def test_a_coupling_in_large_chunks_only_is_found(statistic):
    """Nothing that a small trial could show: what is compared are the chunks that are computed."""
    model = InMultitudes().double()
    model.b = nn.Identity()
    with pytest.raises(ValueError, match="couples the examples"):
        getattr(gradstats, statistic)(model, cross_entropy, *data(100))


@pytest.mark.parametrize("statistic", [*STATISTICS, "curvature"])
@pytest.mark.parametrize("module", [gradstats, naive], ids=["fast", "naive"])
def test_hooks_on_parameters_are_refused(module, statistic):
    model = network("linear")
    hook = model[0].weight.register_hook(lambda g: g * 0.5)
    with pytest.raises(ValueError, match=r"model\.0\.weight has a hook"):
        getattr(module, statistic)(model, cross_entropy, *data(9))
    hook.remove()
    assert getattr(module, statistic)(model, cross_entropy, *data(9)) is not None


TOKENS = torch.arange(12).view(6, 2) % 5
AWKWARD = {
    "sparse embedding": (nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.Flatten(), nn.Linear(4, 3)), TOKENS),
    "sparse embedding bag": (nn.Sequential(nn.EmbeddingBag(5, 4, sparse=True, mode="sum"), nn.Linear(4, 3)), TOKENS),
    "functional sparse embedding": (nets.mlp((2, 3)), TOKENS),
    "embedding bag": (nn.Sequential(nn.EmbeddingBag(5, 4), nn.Linear(4, 3)), TOKENS),
    "embedding with max_norm": (nn.Sequential(nn.Embedding(5, 2, max_norm=0.1), nn.Flatten(), nn.Linear(4, 3)), TOKENS),
    "reentrant checkpoint": (nn.Sequential(Checkpointed(use_reentrant=True), nn.Linear(D, 3)), None),
    "lazy layer": (nn.Sequential(nn.LazyLinear(3)), None),
    "meta": (nn.Linear(D, 3, device="meta"), None),
    "sparse inputs": (nn.Linear(D, 3), data(6)[0].to_sparse()),
    "meta inputs": (nn.Linear(D, 3), data(6)[0].to("meta")),
    "wrong width": (nn.Linear(D + 1, 3), None),
    "no forward": (nn.ModuleList([nn.Linear(D, 3)]), None),
    "no batch": (nn.Sequential(nn.Linear(D, 3), nn.Flatten(0)), None),
    "an input overwritten": (nn.Sequential(Overwriting(), nn.Linear(D, 3)), None),
    "an exception": (nn.Sequential(nn.Linear(D, 3), nn.Unflatten(1, (2, 2))), None),
}  # fmt: skip


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Parameter(torch.ones(5, 2)), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(F.embedding(x, self.table, sparse=True).flatten(1))


AWKWARD["functional sparse embedding"] = Sparse(), TOKENS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("statistic", [*STATISTICS, "curvature"])
@pytest.mark.parametrize("case", AWKWARD)
def test_what_torch_cannot_do_is_right_or_refused(case, statistic):
    model, x = AWKWARD[case]
    model = model if case in ("meta", "lazy layer") else model.double()
    x = data(6)[0] if x is None else x
    x = x.to(next(model.parameters()).dtype) if x.is_floating_point() and case == "lazy layer" else x
    arguments = model, cross_entropy, x, data(6)[1]
    try:
        result = getattr(gradstats, statistic)(*arguments)
    except REFUSED:
        return
    if statistic != "curvature":
        assert error(result, truth(statistic, *arguments)) < EXACT


@pytest.mark.parametrize("statistic", STATISTICS)
def test_autocast_inside_is_refused(statistic):
    """Gradients of three digits are no basis for differences of gradients."""

    class Autocast(Block):
        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return torch.tanh(self.a(x)).float()

    x, y = data(9)
    with pytest.raises(ValueError, match=r"a Linear layer computes in torch.bfloat16"):
        getattr(gradstats, statistic)(Autocast(), cross_entropy, x.float(), y)


def test_weights_that_forward_changes_are_found_and_put_back():
    class Clipped(Block):
        def forward(self, x):
            self.a.weight.data.clamp_(-0.1, 0.1)
            return self.a(x)[:, :3]

    model = Clipped().double()
    before = model.a.weight.detach().clone()
    with pytest.raises(ValueError, match=r"changes its state at every call \(weight\)"):
        gradstats.moments(model, cross_entropy, *data(9))
    assert torch.equal(model.a.weight, before)


def test_inputs_may_come_from_inference_mode():
    model, (x, y) = network("linear", "tanh"), data(9)
    with torch.inference_mode():
        got = gradstats.grad_trace(model, cross_entropy, x.clone(), y.clone())
    assert error(got, truth("grad_trace", model, cross_entropy, x, y)) < EXACT


def test_a_target_out_of_range_is_refused():
    x, y = data(6)
    with pytest.raises(ValueError, match=r"model or loss fails.*out of bounds"):
        gradstats.moments(network("linear"), cross_entropy, x, y + 1)


def test_what_builds_on_the_gradients_names_what_is_wrong():
    model, (x, y) = network("linear"), data(6)
    for function in (penalties.modified_gradient, penalties.modified_loss):
        with pytest.raises(TypeError, match="inputs is a NoneType"):
            function(model, cross_entropy, None, y, eta=0.1, batch_size=2)
        with pytest.raises(ValueError, match="couples the examples"):
            function(model, COUPLED_LOSSES["hard examples"], x, y, eta=0.1, batch_size=2)
    optimizer = precondition.InverseCovariance(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="model is a NoneType"):
        optimizer.refresh(None, cross_entropy, x, y)
    with pytest.raises(ValueError, match="couples the examples"):
        optimizer.refresh(model, COUPLED_LOSSES["hard examples"], x, y)
    P = precondition.low_rank(rows(model, cross_entropy, x, y), rank=2, rho=0.1)
    with pytest.raises(TypeError, match="g is a list"):
        P.apply([1.0])
    with pytest.raises(TypeError, match=r"g has dtype torch.float32: expected torch.float64"):
        P.apply(torch.ones(P.V.shape[1]))


def test_a_lack_of_memory_stays_one():
    class Exhausted(Block):
        def forward(self, x):
            raise torch.OutOfMemoryError("a large tensor")

    with pytest.raises(torch.OutOfMemoryError):
        gradstats.moments(Exhausted().double(), cross_entropy, *data(6))


# --- how far is looked ----------------------------------------------------------------------------------------------


class FarAway(Block):
    """Examples far away, and no others, are moved by their company."""

    def forward(self, x):
        far = (x[:, 0] > 50).to(x)[:, None]
        return torch.tanh(self.a(x)) * (1 + far * x.mean())


@pytest.mark.parametrize("statistic", STATISTICS)
def test_full_verification_looks_at_every_example(statistic):
    x, y = data(300)
    x[_left_out(300), 0] = 100.0
    model = nn.Sequential(FarAway(), nn.Linear(D, 3)).double()
    getattr(gradstats, statistic)(model, cross_entropy, x, y)
    with pytest.raises(ValueError, match=rf"example {_left_out(300)} is .* couples the examples"):
        getattr(gradstats, statistic)(model, cross_entropy, x, y, verify="full")


def _left_out(n):
    """An example that is not in the copy of n."""
    x, y = data(n)
    with gradstats._sample.entered(network("residual"), cross_entropy, x, y) as sample:
        return next(iter(set(range(n)) - set(_copy.copied(sample, verify=True).numbers)))


@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 27, 64, 65, 300])
def test_a_copy_is_cut_unevenly_and_whole(k):
    sizes = _copy.sizes(k)
    assert sum(sizes) == k
    assert sizes[:10] == ([1] * 10)[:k]
    assert len(set(sizes)) == 1 if k <= 32 else len(set(sizes)) >= 3


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("block", ["linear", "micro-batches", "early exit", "layer norm", "style", "temperature"])
def test_without_verification_the_numbers_are_the_same(block, statistic):
    model, examples = network("linear", block), data(11)
    result = getattr(gradstats, statistic)(model, cross_entropy, *examples, verify=False)
    if block != "style":  # the one that nothing but the loop shows
        assert error(result, truth(statistic, model, cross_entropy, *examples)) < EXACT


@pytest.mark.parametrize("value", [None, "all", 2, [True]])
def test_verify_is_true_false_or_full(value):
    with pytest.raises(ValueError, match=r"verify = .*expected True, False or 'full'"):
        gradstats.moments(network("linear"), cross_entropy, *data(6), verify=value)


# --- left as they were ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", [*STATISTICS, "curvature"])
def test_model_inputs_and_generators_are_left_as_they_were(statistic):
    model, (x, y) = network("clamping", "counting", "batch norm, eval"), data(9)
    x = 3 * x
    kept, state = x.clone(), {name: value.clone() for name, value in model.state_dict().items()}
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    getattr(gradstats, statistic)(model, cross_entropy, x, y)
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert next(m for m in model.modules() if isinstance(m, Counting)).calls == 0
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])  # noqa: NPY002
    assert random.getstate() == generators[2]


def test_generators_are_put_back_after_a_refusal():
    model = network("functional dropout")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="random"):
        gradstats.moments(model, cross_entropy, *data(9))
    assert torch.equal(torch.get_rng_state(), state)


# --- a trace is no less than zero -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_examples_have_a_trace_of_zero_or_more(dtype):
    for seed in range(30):
        model, (x, y) = network("linear", "tanh", seed=seed).to(dtype), data(1, seed)
        same = x.to(dtype).expand(5, -1), y.expand(5)
        m = gradstats.moments(model, cross_entropy, *same)
        scale = float(m.mean @ m.mean)
        assert 0 <= float(m.trace) <= 1e-6 * scale
        assert 0 <= float(gradstats.from_gram(gradstats.gram(model, cross_entropy, *same)).trace) <= 1e-5 * scale


@pytest.mark.parametrize("statistic", STATISTICS)
def test_an_example_may_be_one_number(statistic):
    """Tokens, or scalar inputs, of more examples than come alone."""
    torch.manual_seed(0)
    models = {
        "tokens": (nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)), torch.arange(40) % 5),
        "scalars": (nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 3)), torch.linspace(-1, 1, 40).double()),
    }
    for model, x in models.values():
        arguments = model.double(), cross_entropy, x, data(40)[1]
        assert error(getattr(gradstats, statistic)(*arguments), truth(statistic, *arguments)) < EXACT


@pytest.mark.parametrize("n", [8, 32, 40])
@pytest.mark.parametrize("kind", ["centred", "class balanced", "hard examples"])
@pytest.mark.parametrize("statistic", CHUNKED)
def test_chunks_of_one_example_hide_no_coupling(statistic, kind, n):
    with pytest.raises(ValueError, match="couples the examples"):
        getattr(gradstats, statistic)(*coupled(kind), *data(n), chunk_size=1)


@pytest.mark.parametrize("statistic", CHUNKED)
@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("block", ["gated", "gated, turned"])
def test_rows_that_few_examples_use_are_seen(block, chunk_size, statistic):
    """Neither of the pair that the loop checks need be among them."""
    for seed in range(3):
        model, examples = network("linear", block, seed=seed), data(200, seed)
        got = getattr(gradstats, statistic)(model, cross_entropy, *examples, chunk_size=chunk_size)
        assert error(got, truth(statistic, model, cross_entropy, *examples)) < EXACT


class Squeezed(nn.Module):
    """Nothing on the way forward; on the way back all gradients are made smaller together."""

    def forward(self, x):
        if x.requires_grad:
            x.register_hook(lambda g: g * (0.01 / g.norm()).clamp(max=1))
        return x


@pytest.mark.parametrize("statistic", CHUNKED)
def test_a_coupling_on_the_way_back_is_seen(statistic):
    """What the loop gives, one example at a time, or an error."""
    model, examples = nn.Sequential(nn.Linear(D, D), Squeezed(), nn.Linear(D, 3)).double(), data(100)
    try:
        got = getattr(gradstats, statistic)(model, cross_entropy, *examples)
    except REFUSED:
        return
    assert error(got, tensors(getattr(naive, statistic)(model, cross_entropy, *examples))) < EXACT


class SeldomNormed(nn.Module):
    """The examples with a large first number go through a layer with weight_norm."""

    def __init__(self):
        super().__init__()
        self.plain, self.normed = nn.Linear(D, 3), nn.utils.parametrizations.weight_norm(nn.Linear(D, 3))

    def forward(self, x):
        out, large = torch.zeros(len(x), 3, dtype=x.dtype), x[:, 0] > 1.8
        for chosen, layer in ((large, self.normed), (~large, self.plain)):
            if chosen.any():
                out[chosen] = torch.tanh(layer(x[chosen]))
        return out


@pytest.mark.parametrize("statistic", ["grad_trace", "curvature"])
def test_weight_norm_is_refused_whoever_uses_it(statistic):
    x, y = data(100)
    assert x[0, 0] <= 1.8 < x[:, 0].max()
    with pytest.raises(ValueError, match="weight_norm"):
        getattr(gradstats, statistic)(SeldomNormed().double(), cross_entropy, x, y)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_writes_that_torch_does_not_count_stay_inside(statistic):
    model, (x, y) = nn.Sequential(ByArray(), nn.Linear(D, 3)).double(), data(20)
    before = x.clone()
    expected = truth(statistic, model, cross_entropy, x, y)
    assert torch.equal(x, before)
    assert error(getattr(gradstats, statistic)(model, cross_entropy, x, y), expected) < EXACT
    assert torch.equal(x, before)


class Following(nn.Module):
    """A loss that follows the mean of the outputs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def losses(self, outputs, targets):
        self.mean += outputs.detach().mean()
        return cross_entropy(outputs, targets)


@pytest.mark.parametrize("wrap", [lambda loss: loss, partial, lambda loss: lambda o, t: loss(o, t)],
                         ids=["method", "partial", "closure"])  # fmt: skip
def test_a_state_behind_the_loss_is_found_and_put_back(wrap):
    following = Following().double()
    with pytest.raises(ValueError, match=r"changes its state at every call \(mean\)"):
        gradstats.moments(network("linear"), wrap(following.losses), *data(9))
    assert following.mean == 0


def test_lists_and_flags_are_put_back():
    class Busy(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.norm, self.fixed = [], nn.LayerNorm(D), nn.Linear(D, 3).requires_grad_(False)

        def forward(self, x):
            self.seen.append(x)
            self.norm.train(not self.norm.training)
            return self.fixed(self.norm(x))

    model = Busy().double()
    gradstats.moments(model, cross_entropy, *data(9))
    assert model.seen == []
    assert model.norm.training
    assert not model.fixed.weight.requires_grad


def test_buffers_need_not_be_dense():
    class OnGraph(Block):
        def __init__(self):
            super().__init__()
            self.register_buffer("links", torch.eye(D, dtype=torch.float64).to_sparse())

        def forward(self, x):
            return self.a((self.links @ x.T).T)

    model, examples = nn.Sequential(OnGraph(), nn.Linear(D, 3)).double(), data(9)
    assert (
        error(gradstats.gram(model, cross_entropy, *examples), truth("gram", model, cross_entropy, *examples)) < EXACT
    )


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_half_of_the_digits_at_any_scale(scale):
    a = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert close(scale * a, scale * a * (1 + 1e-12))
    assert not close(scale * a, 2 * scale * a)
    assert not close(scale * a, 0 * a)
    assert not close(0 * a, scale * a)
    assert close(0 * a, 0 * a)


def test_the_modified_loss_leaves_its_targets_alone():
    def loss(outputs, targets):
        return cross_entropy(outputs, targets.sub_(1).clamp(0, 2))

    model, (x, y) = network("linear"), data(8)
    before = y.clone()
    penalties.modified_loss(model, loss, x, y, eta=0.1, batch_size=2)
    assert torch.equal(y, before)


class Meanwhile(nn.Module):
    """While the first batch is computed, another thread draws a number."""

    def __init__(self, model, draw):
        super().__init__()
        self.model, self.threads = model, iter([threading.Thread(target=draw)])

    def forward(self, x):
        for thread in self.threads:
            thread.start()
            thread.join()
        return self.model(x)


@pytest.mark.parametrize("draw", [random.random, np.random.random, partial(torch.rand, 1)])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_other_threads_may_draw(statistic, draw):
    """From the generators that all threads share."""
    examples = data(9)
    model = Meanwhile(network("linear"), draw)
    got = getattr(gradstats, statistic)(model, cross_entropy, *examples)
    assert next(model.threads, None) is None
    assert error(got, truth(statistic, model, cross_entropy, *examples)) < EXACT
