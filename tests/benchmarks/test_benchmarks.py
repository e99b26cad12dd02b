"""The benchmarks compute what they say, at toy sizes; no time is asserted."""

import harness
import numpy as np
import part1
import part2
import part3
import part4
import pytest
import torch
from harness import Goal, Row, Task, Unusable

TASKS = {
    "least squares": (part1.least_squares(6, 15, None, [part1.RK45, part1.DUAL, part1.LSODA, part1.PATH], 0), 1e-8),
    "ill-conditioned": (part1.least_squares(6, 15, 1e3, [part1.LSODA, part1.PATH], 0), 1e-8),
    "hard margin": (part1.hard_margin(8, 20, 0), 1e-6),
    "diagonal network": (part1.diagonal_limit(5, 15, 1e-6, [part1.FLOW, part1.OURS], 0), 1e-6),
}
OPTIONAL = {part1.CLARABEL, part1.TSIT5, part1.KVAERNO5, part1.DOPRI5, part1.CVXPY}
CASES = [
    pytest.param(task, peer, tolerance, id=f"{title}-{peer}")
    for title, (task, tolerance) in TASKS.items()
    for peer in task.peers
    if peer not in OPTIONAL
]


@pytest.mark.parametrize("task", [pytest.param(task, id=title) for title, (task, _) in TASKS.items()])
def test_ours_meets_the_reference(task):
    assert task.error(task.ours()) < 1e-12


@pytest.mark.parametrize(("task", "peer", "tolerance"), CASES)
def test_a_peer_solves_the_same_problem(task, peer, tolerance):
    answer = task.peers[peer]()
    assert answer is None or task.error(answer) < tolerance


def test_the_two_references_of_least_squares_agree():
    X, y, t = part1.regression(6, 15, None, 0)
    assert part1.relative(part1.flow_by_svd(X, y, t), part1.flow_by_jacobi(X, y, t)) < 1e-14


def test_basis_pursuit_is_another_problem():
    task = part1.diagonal_limit(5, 15, 1e-6, [part1.HIGHS], 0)
    assert 1e-4 < task.error(task.peers[part1.HIGHS]()) < 1


def test_a_false_support_certifies_nothing():
    X, y = part1.separable(8, 20, 0)
    Z = y[:, None] * X
    support = part1.maxmargin.hard_margin(X, y).support
    with pytest.raises(ArithmeticError, match="not the support"):
        part1.certified_margin(Z, support[1:])


def test_both_descents_go_to_the_direction_of_the_flow():
    task = part1.margin_flow(4, 10, "logistic", [part1.DESCENT, part1.DUAL_DESCENT], 0)
    ours = task.error(task.ours())
    w, w_dual = task.peers[part1.DESCENT](), task.peers[part1.DUAL_DESCENT]()
    assert ours < task.error(w) < 0.01
    assert np.allclose(w, w_dual, rtol=1e-9)


# --- per-example gradients ----------------------------------------------------------------------------------------

OURS_ALONE = part2.FEW, part2.SUM_SQUARED, part2.GHOST, part2.SAMPLES  # peers of optional libraries
WAYS = {
    "moments": [part2.PLAIN, part2.VMAP, *OURS_ALONE], "gram": [part2.VMAP_GRAM],
    "grad_trace": [part2.PLAIN, part2.REVERSE, part2.FORWARD],
}  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """One chunk size, seven at a time, so that nothing is tuned."""
    monkeypatch.setattr(part2, "tuned", lambda *_: (7, False))


@pytest.mark.parametrize("name", ["784-5-10", part2.CONV], ids=["mlp", "conv"])
@pytest.mark.parametrize("kind", WAYS)
def test_our_statistics_and_those_of_torch_meet_the_loop(kind, name, small):
    task = part2.statistic(kind, name, 10, [way for way in WAYS[kind] if way not in OURS_ALONE], "cpu", 0)
    assert task.error(task.ours()) < 1e-12
    answers = {way: call() for way, call in task.peers.items()}
    assert answers.pop(part2.PLAIN, None) is None
    assert all(task.error(answer) < 1e-12 for answer in answers.values())


@pytest.mark.parametrize("way", OURS_ALONE)
@pytest.mark.parametrize("name", ["784-5-10", part2.CONV], ids=["mlp", "conv"])
def test_statistics_of_libraries_meet_the_loop(name, way, small):
    pytest.importorskip("backpack" if "BackPACK" in way else "opacus")
    task = part2.statistic("moments", name, 10, [way], "cpu", 0)
    assert task.error(task.peers[way]()) < 1e-12


def test_an_error_of_any_moment_is_seen():
    exact = part2.gradstats.GradientMoments(torch.ones(2), torch.tensor(1.0), torch.tensor(2.0), 10)
    for field, value in {
        "mean": torch.tensor([1.0, 1.1]),
        "sq_norm": torch.tensor(1.2),
        "trace": torch.tensor(2.2),
    }.items():
        assert part2.relative(part2.peers.Moments(**{**_moments(exact), field: value}), exact) > 0.05


def _moments(exact):
    return {"mean": exact.mean, "sq_norm": exact.sq_norm, "trace": exact.trace}


def test_chunks_are_tuned_among_those_that_fit():
    size, layout = part2.tuned(part2.PLAIN, "784-5-10", 40, "cpu")
    assert size == 16
    assert layout is False


def test_every_case_has_its_peers_and_goals():
    for case in part2.cases(quick=True, device="cpu"):
        assert set(case.goals) <= set(case.make.args[3])


# --- particles ------------------------------------------------------------------------------------------------------

COMPILED = {part3.FLOOR, part3.FUSED, part3.NUMBA}
JAX = {part3.THREEFRY, part3.RBG, part3.SIGNS}


@pytest.mark.parametrize("kind", ["signs", "signs, no numba", "normals"])
def test_our_ensembles_have_the_mean(kind):
    if kind != "signs, no numba":
        pytest.importorskip("numba")
    task = part3.ensemble(kind, [], 3000, 40, 0)
    assert task.error(task.ours()) < 4


@pytest.mark.parametrize("way", part3.WAYS)
def test_peers_run_the_same_valley(way):
    pytest.importorskip("numba" if way in COMPILED else "jax" if way in JAX else "numpy")
    task = part3.ensemble("signs, no numba", [way], 3000, 40, 0)
    answer = task.peers[way]()
    assert answer is None or task.error(answer) < 4


def test_another_valley_is_seen():
    """Control: twice the step size."""
    answer = part3.peers.by_numpy(2 * part3.ETA, 40, 3000, 0)
    assert part3.far(40, answer) > 10


def test_control_variates_gain_in_the_benchmark():
    task = part3.controlled(False, 3000, 80, 0)
    plain, ours = task.error(task.peers[part3.PLAIN]()), task.error(task.ours())
    assert plain > 30 * ours


def test_every_case_of_part_three_has_its_peers_and_goals():
    for case in part3.particle_cases(quick=True):
        assert set(case.goals) <= {*part3.WAYS, part3.PLAIN}
        assert len(case.problem) <= 60


# --- steps with chosen noise ----------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    """Thirty images."""
    examples = part4.examples
    monkeypatch.setattr(part4, "examples", lambda problem, seed: tuple(a[:30] for a in examples(problem, seed)))


@pytest.mark.parametrize("problem", [part4.CONV, part4.MLP], ids=["conv", "mlp"])
@pytest.mark.parametrize("kind", ["gaussian_cov", "sgd", "bernoulli", "minibatch_cov"])
def test_steps_and_those_of_peers_have_the_gradient(kind, problem, few):
    peers = [part4.GD, part4.PLAIN, part4.SUPPORT, part4.EVERY, part4.SGD]
    task = part4.step(problem, kind, 10, peers, "cpu", 0)
    for call in (task.ours, *task.peers.values()):
        for _ in range(2):
            assert task.error(call()) < 1e-12


def test_the_gradient_of_another_step_is_seen(few):
    task = part4.step(part4.MLP, "sgd", 10, [], "cpu", 0)
    step = task.ours()
    (W, _), (_, g) = step(), step()
    assert task.error(lambda: (W, g)) > 0.1


def test_every_case_of_part_four_has_its_peers_and_goals():
    for case in part4.cases("cpu"):
        assert set(case.goals) <= set(case.make.args[3])


def test_wall_time_may_be_asked_for():
    calls = []
    harness.in_turns(lambda: calls.append("ours"), lambda: calls.append("peer"), budget=0.0, clock=harness.WALL)
    assert {"ours", "peer"} == set(calls)


def row(ratios, ours_error=0.0, peer_error=None, goal=None):
    return Row("group", "problem", "peer", 1.0, 2.0, ratios, ours_error, peer_error, goal)


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal("ratio", 2), True), (Goal("ratio", 2.1), False), (Goal("error", error=1e-12), True),
        (Goal("error", error=1e-14), False), (Goal("gain", gain=10), True), (Goal("gain", gain=11), False),
    ],
    ids=lambda value: f"{value.ratio}-{value.error}-{value.gain}" if isinstance(value, Goal) else str(value),
)  # fmt: skip
def test_a_goal_is_judged_by_the_median_ratio_and_the_errors(goal, reached):
    assert row([1.0, 2.0, 9.0], 1e-13, 1e-12, goal).reached is reached


def test_a_row_without_goal_is_neither_reached_nor_missed():
    assert row([1.0]).plain()["reached"] is None


def test_times_are_taken_in_turns():
    calls = []
    harness.in_turns(lambda: calls.append("ours"), lambda: calls.append("peer"), budget=0.0)
    assert calls[0] == "ours"
    assert calls[-1] == "peer"


def test_what_is_not_installed_is_left_out_with_a_line(capsys):
    def missing():
        raise ImportError("no such library", name="nolibrary")

    case = harness.Case("group", "problem", lambda seed: Task(float, {"peer": missing}, float), {})
    rows, skipped = harness.run([case], [0], budget=0.0)
    assert rows == []
    assert skipped == ["problem: peer left out, nolibrary is not installed"]
    assert skipped[0] in capsys.readouterr().out


def test_a_peer_over_the_cap_is_left_out(monkeypatch):
    monkeypatch.setattr(harness, "CAP", -1.0)
    case = harness.Case("group", "problem", lambda seed: Task(float, {"peer": float}, float), {})
    with pytest.raises(Unusable, match="one call takes"):
        harness.compare(case, "peer", [case.make(0)], budget=0.0)
