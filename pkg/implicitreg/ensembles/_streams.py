r"""Random streams that need no state: what run r draws at step t is a function of (seed, r, t) alone.

The function is Philox 4x32 with seven rounds (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3,
2011), a bijection of 128-bit counters for every 64-bit key. The key is the seed; the counter holds the run (64 bits),
the number of the block of draws (32 bits) and what the draws are for (32 bits). So no two runs of a seed share a
counter, and different seeds have different keys.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ROUNDS = 7
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
INCREMENTS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
SIGN, ONE = np.uint64(1 << 63), np.uint64(0x3FF0000000000000)  # the bits of -0.0 and of 1.0
STEPS, ORDER, BROWNIAN = 0, 1, 2  # what draws are for: fresh or training points, the order of batches, an SDE

Words = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def words(seed: int, purpose: int, block: int, runs: np.ndarray) -> Words:
    """Four 32-bit words a run, in uint64 arrays ``(P,)``."""
    c0, c1 = np.full_like(runs, block), np.full_like(runs, purpose)
    c2, c3 = runs & LOW, runs >> HALF
    k0, k1 = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & LOW, (p0 >> HALF) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + INCREMENTS[0]) & LOW, (k1 + INCREMENTS[1]) & LOW
    return c0, c1, c2, c3


def draws_per_block(kind: str, size: int) -> int:
    """How many draws of `size` coordinates one block of four words serves; wide Gaussians need several blocks each."""
    return {"rademacher": 4 * (32 // size), "gaussian": max(1, 4 // size), "atoms": 4}[kind]


def thresholds(probabilities: np.ndarray) -> np.ndarray:
    """The word from which on the next atom is drawn: cumulative probabilities in units of 2^-32."""
    return np.rint(np.cumsum(probabilities)[:-1] * 2.0**32).astype(np.uint64)


def normals(w: Words) -> Words:
    """Four standard normals by Box and Muller, from uniform numbers of 32 bits."""
    pairs = []
    for u, v in ((w[0], w[1]), (w[2], w[3])):
        radius = np.sqrt(-2.0 * np.log((u + 0.5) * 2.0**-32))
        angle = v * (2.0**-31 * np.pi)
        pairs += [radius * np.cos(angle), radius * np.sin(angle)]
    return tuple(pairs)


def draws(noise, seed: int, purpose: int, runs: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, ...]]:
    """The first `count` draws of the law `noise`, each a tuple of ``noise.size`` arrays ``(P,)``."""
    per_block, k = draws_per_block(noise.kind, noise.size), noise.size
    limits = thresholds(noise.probabilities) if noise.kind == "atoms" else None
    for t in range(count):
        block, s = divmod(t, per_block)
        if noise.kind == "gaussian":
            if s == 0:
                n = -(-k // 4)
                z = [z for i in range(n) for z in normals(words(seed, purpose, block * n + i, runs))]
            yield tuple(z[s * k : s * k + k])
            continue
        if s == 0:
            w = words(seed, purpose, block, runs)
        if noise.kind == "rademacher":
            word, first = divmod(s, 32 // k)
            yield tuple(signs(w[word], first * k + i) for i in range(k))
        else:
            yield tuple(noise.values[np.searchsorted(limits, w[s], side="right")].T)


def signs(w: np.ndarray, bit: int) -> np.ndarray:
    """1.0 where a bit is 0, -1.0 where it is 1: the bit becomes the sign bit of the float 1.0."""
    return (((w << np.uint64(63 - bit)) & SIGN) | ONE).view(np.float64)


def orders(seed: int, epoch: int, N: int, runs: np.ndarray) -> np.ndarray:
    """A uniformly random order of N points for every run, ``(N, P)``: the order of N words of 64 bits."""
    keys = np.empty((N, runs.size), np.uint64)
    for n in range(N):
        w = words(seed, ORDER, epoch * N + n, runs)
        keys[n] = (w[0] << HALF) | w[1]
    return np.argsort(keys, axis=0)
