"""The contractions of the third derivative agree, at toy size; no time is asserted."""

import derivative_cases as cases
import pytest


@pytest.mark.parametrize("peer", [cases.FULL, cases.TRACE, cases.CHECKED, cases.SMALL])
def test_every_way_gives_the_same_contraction(peer):
    task = cases.contraction(16, [peer], 0)
    assert task.error(task.ours()) < 1e-12
    answer = task.peers[peer]()
    assert answer is None or task.error(answer) < 1e-12


def test_an_error_is_seen():
    task = cases.contraction(16, [], 0)
    assert task.error(1.1 * task.ours()) > 0.09


def test_every_goal_has_its_peer():
    for case in cases.CASES:
        assert set(case.goals) <= set(case.make.args[1])
