"""How fast part I is, against other ways to the same answers: ``python tests/benchmarks/part1.py [--quick]``.

The full run takes several minutes and writes book/records/bench_part1.json; ``--quick`` prints the small sizes only.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import peers
import scipy.linalg
from harness import Case, Goal, Task, run, save
from implicitreg.flow import diagonal, maxmargin, minnorm
from scipy.special import expit

EXACT = 1e-12
EPS = float(np.finfo(np.longdouble).eps)  # 1e-19 on x86-64, 2e-16 where long double is double
LATE = 50.0  # log(1 + t) of the classification flows
RK45, DUAL, LSODA = "RK45, d unknowns", "RK45, n unknowns", "LSODA, d unknowns, Jacobian"
TSIT5, KVAERNO5, DOPRI5 = "Tsit5, diffrax, compiled", "Kvaerno5, diffrax, compiled", "dopri5, torchdiffeq"
PATH = "floor: XX' and one product"
NNLS, LINEAR_SVC, SVC, CLARABEL = "NNLS on the dual", "LinearSVC, C = 1e6", "SVC, C = 1e10", "Clarabel on the dual"
GRAM = "floor: ZZ'"
DESCENT, DUAL_DESCENT = "1e4 normalised steps", "1e4 normalised steps, n unknowns"
HIGHS, CVXPY = "basis pursuit, HiGHS", "basis pursuit, CVXPY, Clarabel"
FLOW, OURS = "LSODA to residual 1e-8", "ours at alpha = 1e-6"


def relative(w: np.ndarray, w_ref: np.ndarray) -> float:
    """The largest distance from the reference over its largest length; several vectors are rows."""
    distance = np.linalg.norm(np.atleast_2d(w - w_ref), axis=1).max()
    return float(distance / np.linalg.norm(np.atleast_2d(w_ref), axis=1).max())


# --- least squares ------------------------------------------------------------------------------------------------


def regression(n: int, d: int, cond: float | None, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, y and 200 times, from the first motion to e^-10 of the slowest mode."""
    rng = np.random.default_rng([1, n, d, seed])
    X = rng.standard_normal((n, d)) / np.sqrt(d)
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    if cond is not None:
        s = np.geomspace(1, 1 / cond, n)
        X = (U * s) @ Vt
    t = np.r_[0, np.geomspace(0.01 / s[0] ** 2, 10 / s[-1] ** 2, 199)]
    return X, X @ rng.standard_normal(d), t


def flow_by_svd(X: np.ndarray, y: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The reference where X is well-conditioned, good to about 1e-14."""
    U, s, Vt = scipy.linalg.svd(X, full_matrices=False, lapack_driver="gesvd")
    return (-np.expm1(-np.outer(t, s**2)) / s * (y @ U)) @ Vt


def flow_by_jacobi(X: np.ndarray, y: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The reference where X is ill-conditioned: one-sided Jacobi rotations of (X, y) in extended precision.

    When all rows are orthogonal they are s_j v_j', and each mode is a scalar problem.
    """
    A = np.column_stack([X, y]).astype(np.longdouble)
    n = len(A)
    for _ in range(30):
        if max(_make_orthogonal(A, i, j) for i in range(n) for j in range(i + 1, n)) < 10 * EPS:
            break
    rows, b = A[:, :-1], A[:, -1]
    lam = (rows**2).sum(axis=1)
    return (-np.expm1(-np.multiply.outer(t, lam)) / lam * b) @ rows


def _make_orthogonal(A: np.ndarray, i: int, j: int) -> float:
    """Rotate rows i and j, but for their last entries, to a right angle; the cosine before."""
    a, b = A[i, :-1], A[j, :-1]
    aa, bb, ab = a @ a, b @ b, a @ b
    if ab != 0:
        zeta = (bb - aa) / (2 * ab)
        tangent = np.copysign(1, zeta) / (abs(zeta) + np.hypot(1, zeta))
        c = 1 / np.hypot(1, tangent)
        A[i], A[j] = c * (A[i] - tangent * A[j]), c * (A[j] + tangent * A[i])
    return float(abs(ab) / np.sqrt(aa * bb))


def least_squares(n: int, d: int, cond: float | None, names: list[str], seed: int) -> Task:
    X, y, t = regression(n, d, cond, seed)
    W_ref = flow_by_svd(X, y, t) if cond is None else flow_by_jacobi(X, y, t)
    A = np.random.default_rng(0).standard_normal((len(t), n))
    ways = {
        RK45: partial(peers.flow_by_scipy, X, y, t, "RK45"),
        DUAL: partial(peers.flow_in_n_unknowns, X, y, t),
        LSODA: partial(peers.flow_by_scipy, X, y, t, "LSODA"),
        TSIT5: partial(peers.flow_by_diffrax, X, y, t, "Tsit5"),
        KVAERNO5: partial(peers.flow_by_diffrax, X, y, t, "Kvaerno5"),
        DOPRI5: partial(peers.flow_by_torchdiffeq, X, y, t),
        PATH: partial(peers.gram_and_product, X, A),
    }
    ours = partial(minnorm.gradient_flow, X, y, t)
    return Task(ours, {name: ways[name] for name in names}, lambda W: relative(W, W_ref))


def least_squares_cases(quick: bool) -> list[Case]:
    all_of_them = [RK45, LSODA, TSIT5, DOPRI5, PATH]
    stiff = {LSODA: Goal("≥ 200", 200)}
    large = {
        RK45: Goal("≥ 12, error ≤ 1e-12", 12, EXACT), TSIT5: Goal("≥ 5, error ≤ 1e-12", 5, EXACT),
        DOPRI5: Goal("≥ 15, error ≤ 1e-12", 15, EXACT), PATH: Goal("at most 1.6 times the floor", 1 / 1.6),
    }  # fmt: skip
    table = [
        (50, 200, None, all_of_them, {}), (50, 200, 1e6, [LSODA, KVAERNO5, PATH], stiff),
        (200, 1000, None, all_of_them, {}), (500, 5000, None, [RK45, DUAL, TSIT5, DOPRI5, PATH], large),
    ]  # fmt: skip
    return [
        Case("Least squares: gradient flow at 200 times", f"{n} × {d}" + (f", condition {cond:.0e}" if cond else ""),
             partial(least_squares, n, d, cond, names), goals)
        for n, d, cond, names, goals in table if not quick or n <= 200
    ]  # fmt: skip


# --- the maximum margin -------------------------------------------------------------------------------------------


def separable(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian points with the labels of a random hyperplane; separable in any case as n < d."""
    rng = np.random.default_rng([2, n, d, seed])
    X = rng.standard_normal((n, d))
    return X, np.sign(X @ rng.standard_normal(d))


def certified_margin(Z: np.ndarray, S: np.ndarray) -> np.ndarray:
    """w with Z_S w = 1 and its multipliers in extended precision, after checking that they prove it optimal."""
    Z_long = Z.astype(np.longdouble)
    factor = scipy.linalg.cho_factor(Z[S] @ Z[S].T)
    b, w = np.zeros(len(S), np.longdouble), np.zeros(Z.shape[1], np.longdouble)
    for _ in range(4):
        b += scipy.linalg.cho_solve(factor, (1 - Z_long[S] @ w).astype(float))
        w = b @ Z_long[S]
    if b.min() < 0 or (Z_long @ w).min() < 1 - 1000 * EPS:
        raise ArithmeticError("this is not the support of the hard margin")
    return w


def hard_margin(n: int, d: int, seed: int) -> Task:
    X, y = separable(n, d, seed)
    Z = y[:, None] * X
    w_ref = certified_margin(Z, maxmargin.hard_margin(X, y).support)
    ways = {
        NNLS: partial(peers.margin_by_nnls, Z),
        LINEAR_SVC: partial(peers.margin_by_linear_svc, X, y),
        SVC: partial(peers.margin_by_svc, X, y),
        CLARABEL: partial(peers.margin_by_clarabel, Z),
        GRAM: partial(peers.gram, Z),
    }
    return Task(lambda: maxmargin.hard_margin(X, y).w, ways, lambda w: relative(w, w_ref))


def hard_margin_cases(quick: bool) -> list[Case]:
    small = {NNLS: Goal("≥ 1/1.5, error ≤ 1e-12", 1 / 1.5, EXACT)}
    large = {
        NNLS: Goal("≥ 4, error ≤ 1e-12", 4, EXACT), LINEAR_SVC: Goal("≥ 4, error ≤ 1e-12", 4, EXACT),
        GRAM: Goal("at most 2.5 times the floor", 1 / 2.5),
    }  # fmt: skip
    sizes = [(20, 50), (100, 200), (200, 1000), (500, 1000), (1000, 4000)]
    return [
        Case("Hard margin", f"{n} × {d}", partial(hard_margin, n, d), large if n >= 200 else small)
        for n, d in sizes if not quick or n <= 200
    ]  # fmt: skip


def margin_flow(n: int, d: int, loss: str, names: list[str], seed: int) -> Task:
    """The direction of dw/dlog t at t = e^50, against that of plain descent's w."""
    X, y = separable(n, d, seed)
    Z = y[:, None] * X
    w_ref = maxmargin.hard_margin(X, y).w
    u_ref = w_ref / np.linalg.norm(w_ref)

    def velocity() -> np.ndarray:
        m = Z @ maxmargin.gradient_flow(X, y, [LATE], loss)[0]
        return (np.exp(LATE - m) * (expit(m) if loss == "logistic" else 1.0)) @ Z

    ways = {
        DESCENT: partial(peers.normalised_descent, Z, 10**4),
        DUAL_DESCENT: partial(peers.normalised_descent_in_n_unknowns, Z, 10**4),
        GRAM: partial(peers.gram, Z),
    }
    return Task(velocity, {name: ways[name] for name in names}, lambda v: relative(v / np.linalg.norm(v), u_ref))


def margin_flow_cases(quick: bool) -> list[Case]:
    goals = {
        DESCENT: Goal("≥ 15, error 10 times smaller", 15, gain=10),
        GRAM: Goal("at most 2 times the floor", 1 / 2),
    }
    table = [(n, d, loss, [DESCENT, DUAL_DESCENT])
             for n, d in [(20, 50), (100, 200), (200, 1000)] for loss in maxmargin.LOSSES]  # fmt: skip
    table.append((1000, 4000, "exp", [GRAM]))
    return [
        Case("Gradient flow of the exp and logistic losses to t = e^50", f"{n} × {d}, {loss}",
             partial(margin_flow, n, d, loss, names), goals)
        for n, d, loss, names in table if not quick or n <= 100
    ]  # fmt: skip


# --- diagonal networks --------------------------------------------------------------------------------------------


def sparse_regression(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian X, n/10 nonzero weights (at least 4), and noise of a tenth of the signal."""
    rng = np.random.default_rng([3, n, d, seed])
    X, w = rng.standard_normal((n, d)) / np.sqrt(n), np.zeros(d)
    w[: max(4, n // 10)] = rng.standard_normal(max(4, n // 10))
    return X, X @ w + 0.1 * np.linalg.norm(w) / np.sqrt(n) * rng.standard_normal(n)


def refined_limit(X: np.ndarray, y: np.ndarray, log_alpha: float, dual: np.ndarray) -> np.ndarray:
    """w = 2 alpha² sinh(X'dual) with X w = y in extended precision, by Newton's method from a good dual point.

    Where it holds it is the answer: the dual problem is strictly convex, its gradient y - X w.
    """
    X_long, lam = X.astype(np.longdouble), dual.astype(np.longdouble)
    for _ in range(4):
        z = X_long.T @ lam
        up, down = np.exp(2 * np.longdouble(log_alpha) + z), np.exp(2 * np.longdouble(log_alpha) - z)
        residual = y - X_long @ (up - down)
        H = (X * (up + down).astype(float)) @ X.T
        lam += scipy.linalg.solve(H, residual.astype(float), assume_a="pos")
    if np.abs(residual).max() > 1e4 * EPS * np.abs(y).max():
        raise ArithmeticError("the reference of the diagonal network does not converge")
    return up - down


def diagonal_limit(n: int, d: int, alpha: float, names: list[str], seed: int) -> Task:
    X, y = sparse_regression(n, d, seed)
    w_ref = refined_limit(X, y, np.log(alpha), diagonal.limit(X, y, alpha).dual)
    ways = {
        HIGHS: partial(peers.basis_pursuit_by_highs, X, y),
        CVXPY: partial(peers.basis_pursuit_by_cvxpy, X, y),
        FLOW: partial(peers.limit_by_lsoda, X, y, alpha, 1e-8),
        OURS: lambda: diagonal.limit(X, y, 1e-6) and None,
    }
    return Task(lambda: diagonal.limit(X, y, alpha).w, {name: ways[name] for name in names},
                lambda w: relative(w, w_ref))  # fmt: skip


def diagonal_cases(quick: bool) -> list[Case]:
    flat = {OURS: Goal("at most 1.5 times as long as at 1e-6", 1 / 1.5)}
    large = {HIGHS: Goal("≥ 10", 10), FLOW: Goal("≥ 9, error ≤ 1e-12", 9, EXACT)}
    table = [
        (20, 100, [HIGHS, CVXPY, FLOW], {FLOW: Goal("≥ 17, error ≤ 1e-12", 17, EXACT)}),
        (100, 1000, [HIGHS, CVXPY, FLOW], large),
        (200, 5000, [HIGHS, FLOW], large),
    ]
    group = "Diagonal network: the limit"
    cases = []
    for n, d, names, goals in table[: 2 if quick else 3]:
        cases.append(Case(group, f"{n} × {d}, alpha = 1e-6", partial(diagonal_limit, n, d, 1e-6, names), goals))
        few = [HIGHS, OURS]
        cases.append(Case(group, f"{n} × {d}, alpha = 1e-100", partial(diagonal_limit, n, d, 1e-100, few), flat))
    return cases


def cases(quick: bool) -> list[Case]:
    parts = least_squares_cases, hard_margin_cases, margin_flow_cases, diagonal_cases
    return [case for part in parts for case in part(quick)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and two seeds, printed only")
    parser.add_argument("--seeds", type=int, default=5, help="how many draws of the data (default: %(default)s)")
    arguments = parser.parse_args()
    seeds = list(range(min(arguments.seeds, 2) if arguments.quick else arguments.seeds))
    start = time.monotonic()
    rows, skipped = run(cases(arguments.quick), seeds, budget=0.05 if arguments.quick else 0.2)
    wall_seconds = time.monotonic() - start
    print(f"{sum(row.reached is True for row in rows)} of {sum(row.goal is not None for row in rows)} goals reached, "
          f"in {wall_seconds:.0f} s")  # fmt: skip
    if not arguments.quick:
        save("bench_part1", rows, skipped, seeds, wall_seconds)


if __name__ == "__main__":
    main()
