"""Other ways to run SGD many times on the valley of `part3`; none uses the package.

Each returns the last weights of M runs of T steps, ``(M, 2)``; the floor returns None.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

START = 0.3
TORCH_BLOCK = 8192


def by_numpy(eta: float, T: int, M: int, seed: int) -> np.ndarray:
    """Standard normals, all runs at once."""
    rng = np.random.default_rng(seed)
    x, y = np.full(M, START), np.full(M, START)
    for _ in range(T):
        first, second = rng.standard_normal(M), rng.standard_normal(M)
        x, y = x - eta * (x + 0.5 * y * y + first), y - eta * (y * (1 + x) + (1 + 0.3 * x) * second)
    return np.stack([x, y], 1)


def by_numpy_blocks(eta: float, T: int, M: int, seed: int, size: int = 4096) -> np.ndarray:
    """The fastest generator of NumPy, float32, in blocks that stay in the cache, in place."""
    rng = np.random.Generator(np.random.SFC64(seed))
    out, f = np.empty((M, 2), np.float32), np.float32
    noise, u, v = np.empty((2, size), f), np.empty(size, f), np.empty(size, f)
    for low in range(0, M, size):
        x, y = np.full(size, START, f), np.full(size, START, f)
        for _ in range(T):
            rng.standard_normal(out=noise, dtype=f)
            np.multiply(x, f(0.3), out=u)
            u += 1
            u *= noise[1]
            np.add(x, 1, out=v)
            v *= y
            u += v
            u *= f(eta)
            np.multiply(y, y, out=v)
            v *= f(0.5)
            v += x
            v += noise[0]
            v *= f(eta)
            x -= v
            y -= u
        count = min(size, M - low)
        out[low : low + count, 0], out[low : low + count, 1] = x[:count], y[:count]
    return out.astype(float)


def by_torch(eta: float, T: int, M: int, seed: int, dtype: torch.dtype) -> np.ndarray:
    """`normal_` in blocks."""
    generator, blocks = torch.Generator().manual_seed(seed), []
    noise = torch.empty(2, TORCH_BLOCK, dtype=dtype)
    for _ in range(0, M, TORCH_BLOCK):
        x = torch.full((TORCH_BLOCK,), START, dtype=dtype)
        y = x.clone()
        for _ in range(T):
            noise.normal_(generator=generator)
            along_x = torch.addcmul(x + noise[0], y, y, value=0.5)
            along_y = torch.addcmul(y * (1 + x), 1 + 0.3 * x, noise[1])
            x, y = x - eta * along_x, y - eta * along_y
        blocks.append(torch.stack([x, y], 1))
    return torch.cat(blocks)[:M].double().numpy()


@cache
def _jax_loop(implementation: str, signs: bool):
    import jax
    import jax.numpy as jnp

    def loop(key, eta, T, M):
        def step(t, state):
            x, y = state
            k = jax.random.fold_in(key, t)
            draw = jax.random.rademacher if signs else jax.random.normal
            n = draw(k, (2, M), jnp.float32)
            return x - eta * (x + 0.5 * y * y + n[0]), y - eta * (y * (1 + x) + (1 + 0.3 * x) * n[1])

        return jax.lax.fori_loop(0, T, step, (jnp.full(M, START), jnp.full(M, START)))

    return jax.jit(loop, static_argnums=(2, 3)), lambda seed: jax.random.key(seed, impl=implementation)


def by_jax(eta: float, T: int, M: int, seed: int, implementation: str, signs: bool = False) -> np.ndarray:
    """One compiled loop over steps, float32."""
    loop, key = _jax_loop(implementation, signs)
    return np.stack([np.asarray(a, dtype=float) for a in loop(key(seed), eta, T, M)], 1)


@cache
def _numba_loops():
    from numba import njit

    @njit
    def generator(eta, T, M, rng):
        out = np.empty((M, 2))
        for r in range(M):
            x, y = START, START
            for _ in range(T):
                first, second = rng.standard_normal(), rng.standard_normal()
                x, y = x - eta * (x + 0.5 * y * y + first), y - eta * (y * (1 + x) + (1 + 0.3 * x) * second)
            out[r] = x, y
        return out

    def still(eta, T, M, first, second):
        lanes, out = 128, np.empty((M, 2))
        state = np.empty((2, lanes))
        for low in range(0, M, lanes):
            state[:] = START
            for _ in range(T):
                for j in range(lanes):
                    x, y = state[0, j], state[1, j]
                    state[0, j] = x - eta * (x + 0.5 * y * y + first)
                    state[1, j] = y - eta * (y * (1 + x) + (1 + 0.3 * x) * second)
            for j in range(min(lanes, M - low)):
                out[low + j] = state[0, j], state[1, j]
        return out

    return generator, njit(still), njit(fastmath=True)(still)


def by_numba(eta: float, T: int, M: int, seed: int) -> np.ndarray:
    """NumPy's generator inside a compiled loop."""
    return _numba_loops()[0](eta, T, M, np.random.default_rng(seed))


def arithmetic(eta: float, T: int, M: int, seed: int, fused: bool) -> None:
    """The same steps with a constant in place of the noise: what no generator avoids.

    With `fused`, multiplications and additions may be contracted and reordered, and results differ in rounding.
    """
    _numba_loops()[1 + fused](eta, T, M, 0.01, 0.02)
