"""Penalties on random gradients."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicitreg.gap import penalties
from strategies import designs


@given(designs(max_n=4, max_d=3).filter(lambda g: len(g) > 1), st.sampled_from([1 / 8, 1.0]), st.data())
def test_the_penalty_of_gd_is_the_mean_of_smiths_less_that_of_barrett_and_dherin(g, eta, data):
    N = len(g)
    n = data.draw(st.sampled_from([k for k in range(1, N + 1) if N % k == 0]))
    means = np.array([[g[list(o[k : k + n])].mean(0) for k in range(0, N, n)] for o in permutations(range(N))])
    smith = [penalties.smith_penalty(batch_means, eta) for batch_means in means]
    np.testing.assert_allclose(smith, eta / 4 * (means**2).sum(2).mean(1), rtol=1e-11, atol=1e-14)
    whole = penalties.barrett_dherin_penalty(g, eta)
    assert whole == pytest.approx(eta / 4 * np.sum(g.mean(0) ** 2), rel=1e-11, abs=1e-14)
    found = penalties.roberts_penalty(g, eta, batch_size=n)
    assert found == pytest.approx(np.mean(smith) - whole, rel=1e-10, abs=1e-12)
