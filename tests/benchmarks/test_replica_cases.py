"""Networks together and one after the other end in the same place, at toy size; no time is asserted."""

import pytest
import replica_cases as cases


@pytest.mark.parametrize("kind", ["sgd", "bernoulli", "gd"])
def test_every_way_ends_in_the_same_place(kind):
    task = cases.networks(kind, 3, 4, [cases.LOOP, cases.VMAP], 0, n=20, steps=3)
    assert task.error(task.ours()) < 1e-5
    for peer in task.peers.values():
        assert task.error(peer()) < 1e-5


def test_an_error_is_seen():
    task = cases.networks("sgd", 3, 4, [], 0, n=20, steps=3)
    assert task.error(1.01 * task.ours()) > 0.009


def test_every_goal_has_its_peer():
    for case in cases.CASES:
        assert set(case.goals) <= set(case.make.args[3])
