"""The other ways to compute what part I computes, each as fast as we could make it; none uses our package.

Optional libraries are imported inside the functions: calling one that is not installed raises ImportError.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import scipy.linalg
from harness import Unusable
from scipy.integrate import LSODA, solve_ivp
from scipy.optimize import linprog, nnls

ACCURACY = {"rtol": 1e-8, "atol": 1e-10}  # of the integrators, for least squares


# --- least squares: w' = X'(y - Xw) from 0, at the times t --------------------------------------------------------


def flow_by_scipy(X: np.ndarray, y: np.ndarray, t: np.ndarray, method: str) -> np.ndarray:
    jacobian = {"jac": lambda _t, _w: -X.T @ X} if method == "LSODA" else {}
    start = np.zeros(X.shape[1])
    return solve_ivp(lambda _t, w: X.T @ (y - X @ w), (0, t[-1]), start, method, t, **jacobian, **ACCURACY).y.T


def flow_in_n_unknowns(X: np.ndarray, y: np.ndarray, t: np.ndarray) -> np.ndarray:
    """RK45 for the a of w = X'a: a' = y - XX'a."""
    K = X @ X.T
    return solve_ivp(lambda _t, a: y - K @ a, (0, t[-1]), np.zeros(len(y)), "RK45", t, **ACCURACY).y.T @ X


@cache
def _diffrax_solver(method: str) -> Callable:
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    # r @ X is twice as fast as X.T @ r here
    term = diffrax.ODETerm(lambda _t, w, data: (data[1] - data[0] @ w) @ data[0])
    steps = {"stepsize_controller": diffrax.PIDController(**ACCURACY), "max_steps": 10**6}

    @jax.jit
    def solve(X, y, t):
        start, solver = jnp.zeros(X.shape[1]), getattr(diffrax, method)()
        return diffrax.diffeqsolve(term, solver, 0.0, t[-1], None, start, (X, y), saveat=diffrax.SaveAt(ts=t), **steps)

    return solve


def flow_by_diffrax(X: np.ndarray, y: np.ndarray, t: np.ndarray, method: str) -> np.ndarray:
    return np.asarray(_diffrax_solver(method)(X, y, t).ys)


def flow_by_torchdiffeq(X: np.ndarray, y: np.ndarray, t: np.ndarray) -> np.ndarray:
    import torch
    from torchdiffeq import odeint

    torch.set_num_threads(1)
    X, y, t = (torch.from_numpy(a) for a in (X, y, t))
    start = torch.zeros(X.shape[1], dtype=torch.float64)
    with torch.no_grad():
        return odeint(lambda _t, w: X.T @ (y - X @ w), start, t, method="dopri5", **ACCURACY).numpy()


def gram_and_product(X: np.ndarray, A: np.ndarray) -> None:
    """What no method in n unknowns avoids: XX', and the path from its coefficients A (T, n)."""
    _ = X @ X.T, A @ X


# --- the hard margin: min |w|²/2 subject to Zw >= 1, Z the rows y_i x_i -------------------------------------------


def gram(Z: np.ndarray) -> None:
    _ = Z @ Z.T


def margin_by_nnls(Z: np.ndarray) -> np.ndarray:
    """Lawson and Hanson on the dual, min |L'b - L^-1 1| over b >= 0 with ZZ' = LL'."""
    L = np.linalg.cholesky(Z @ Z.T)
    b = nnls(L.T, scipy.linalg.solve_triangular(L, np.ones(len(Z)), lower=True), maxiter=30 * len(Z))[0]
    return Z.T @ b


def margin_by_linear_svc(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    from sklearn.svm import LinearSVC

    machine = LinearSVC(C=1e6, loss="hinge", fit_intercept=False, tol=1e-8, max_iter=10**5, random_state=0)
    return machine.fit(X, y).coef_[0]


def margin_by_svc(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Every point and its mirror image: the intercept is then zero."""
    from sklearn.svm import SVC

    return SVC(C=1e10, kernel="linear", tol=1e-8, cache_size=1000).fit(np.vstack([X, -X]), np.r_[y, -y]).coef_[0]


def margin_by_clarabel(Z: np.ndarray) -> np.ndarray:
    """The dual, min b'ZZ'b/2 - sum b over b >= 0 (the primal takes ten times longer and more)."""
    import clarabel
    from scipy import sparse

    n, settings = len(Z), clarabel.DefaultSettings()
    settings.verbose = False
    K, eye = sparse.csc_matrix(np.triu(Z @ Z.T)), sparse.eye(n, format="csc")
    cones = [clarabel.NonnegativeConeT(n)]
    solver = clarabel.DefaultSolver(K, -np.ones(n), -eye, np.zeros(n), cones, settings)
    return Z.T @ np.array(solver.solve().x)


# --- descent on log(sum exp(-Zw)), eta = 1/R² ---------------------------------------------------------------------


def normalised_descent(Z: np.ndarray, k: int) -> np.ndarray:
    w, eta = np.zeros(Z.shape[1]), 1 / (Z**2).sum(axis=1).max()
    for _ in range(k):
        m = Z @ w
        q = np.exp(m.min() - m)
        w += (eta / q.sum()) * (q @ Z)
    return w


def normalised_descent_in_n_unknowns(Z: np.ndarray, k: int) -> np.ndarray:
    """The same for the a of w = Z'a: one product with ZZ' a step."""
    K, eta = Z @ Z.T, 1 / (Z**2).sum(axis=1).max()
    a, m = np.zeros(len(Z)), np.zeros(len(Z))
    for _ in range(k):
        q = np.exp(m.min() - m)
        q *= eta / q.sum()
        a += q
        m += K @ q
    return a @ Z


# --- diagonal networks, and the basis pursuit they tend to --------------------------------------------------------


def limit_by_lsoda(X: np.ndarray, y: np.ndarray, alpha: float, residual: float) -> np.ndarray:
    """The flow of lam, w = 2 alpha² sinh(X'lam), lam' = y - Xw, until max|y - Xw| < residual * max|y|.

    Errors on the way do not matter, as all paths end at one point: the loosest tolerance is the fastest.
    """
    scale = 2 * alpha**2

    def z(lam: np.ndarray) -> np.ndarray:
        return np.clip(X.T @ lam, -200, 200)  # the bounds are met by rejected trial steps only

    flow = LSODA(
        lambda _t, lam: y - X @ (scale * np.sinh(z(lam))), 0.0, np.zeros(len(y)), np.inf, rtol=1e-2,
        atol=1e-5, jac=lambda _t, lam: -(X * (scale * np.cosh(z(lam)))) @ X.T,
    )  # fmt: skip
    while flow.status == "running":
        flow.step()
        w = scale * np.sinh(z(flow.y))
        if np.abs(y - X @ w).max() < residual * np.abs(y).max():
            return w
    raise Unusable("LSODA gives up")


def basis_pursuit_by_highs(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    d = X.shape[1]
    x = linprog(np.ones(2 * d), A_eq=np.hstack([X, -X]), b_eq=y, method="highs-ds").x
    return x[:d] - x[d:]


def basis_pursuit_by_cvxpy(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    import cvxpy

    w = cvxpy.Variable(X.shape[1])
    cvxpy.Problem(cvxpy.Minimize(cvxpy.norm1(w)), [X @ w == y]).solve(solver="CLARABEL")
    return w.value
