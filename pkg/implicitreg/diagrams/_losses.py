"""Losses and gradients of the landscapes, elementwise in tuples of coordinates.

Each takes theta, x and the parameters as `implicitreg.ensembles.particles.Landscape` has them; a loss takes a number x
and the library, NumPy or torch, as well. None calls another function, so that numba compiles them as they stand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Coordinates = tuple[Any, ...]


def screw_loss(theta: Coordinates, x: Any, parameters: Coordinates, lib: Any) -> Any:
    u, v, z = theta
    a, b, sigma, phi, tilt = parameters
    p, q = u * lib.cos(z) + v * lib.sin(z), v * lib.cos(z) - u * lib.sin(z)
    return (a * p * p + b * q * q) / 2 + x * sigma * (p * math.cos(phi) + q * math.sin(phi)) + tilt * z


def screw_gradient(theta: Coordinates, x: Coordinates, parameters: Coordinates) -> Coordinates:
    u, v, z = theta
    a, b, sigma, phi, tilt = parameters
    cos, sin = np.cos(z), np.sin(z)
    p, q = u * cos + v * sin, v * cos - u * sin
    along_p = a * p + sigma * np.cos(phi) * x[0]
    along_q = b * q + sigma * np.sin(phi) * x[0]
    return along_p * cos - along_q * sin, along_p * sin + along_q * cos, along_p * q - along_q * p + tilt


def screw_drift(theta: Coordinates, parameters: Coordinates) -> Coordinates:
    u, v, z = theta
    a, b, _, _, tilt = parameters
    cos, sin = np.cos(z), np.sin(z)
    p, q = u * cos + v * sin, v * cos - u * sin
    return a * p * cos - b * q * sin, a * p * sin + b * q * cos, (a - b) * p * q + tilt


def screw_spread(theta: Coordinates, w: Coordinates, parameters: Coordinates) -> Coordinates:
    u, v, z = theta
    _, _, sigma, phi, _ = parameters
    cos, sin, force = np.cos(z + phi), np.sin(z + phi), sigma * w[0]
    return force * cos, force * sin, force * (v * cos - u * sin)


def mean_loss(theta: Coordinates, x: Any, parameters: Coordinates, lib: Any) -> Any:
    H, S = parameters
    return H * theta[0] * theta[0] / 2 + x * S * theta[0]


def mean_gradient(theta: Coordinates, x: Coordinates, parameters: Coordinates) -> Coordinates:
    return (parameters[0] * theta[0] + parameters[1] * x[0],)


def mean_drift(theta: Coordinates, parameters: Coordinates) -> Coordinates:
    return (parameters[0] * theta[0],)


def mean_spread(theta: Coordinates, w: Coordinates, parameters: Coordinates) -> Coordinates:
    return (parameters[1] * w[0],)


def gauss_loss(theta: Coordinates, x: Any, parameters: Coordinates, lib: Any) -> Any:
    return (theta[0] + x * x * lib.exp(-theta[0])) / 2


def gauss_gradient(theta: Coordinates, x: Coordinates, parameters: Coordinates) -> Coordinates:
    return ((1.0 - x[0] * x[0] * np.exp(-theta[0])) / 2,)


def gauss_drift(theta: Coordinates, parameters: Coordinates) -> Coordinates:
    return ((1.0 - np.exp(-theta[0])) / 2,)


def gauss_spread(theta: Coordinates, w: Coordinates, parameters: Coordinates) -> Coordinates:
    return (np.exp(-theta[0]) / np.sqrt(2.0) * w[0],)


def cubic_loss(theta: Coordinates, x: Any, parameters: Coordinates, lib: Any) -> Any:
    return theta[0] * theta[0] * theta[0] - (x * x - 1) * theta[0]


def cubic_gradient(theta: Coordinates, x: Coordinates, parameters: Coordinates) -> Coordinates:
    return (3.0 * theta[0] * theta[0] - (x[0] * x[0] - 1.0),)


def cubic_drift(theta: Coordinates, parameters: Coordinates) -> Coordinates:
    return (3.0 * theta[0] * theta[0],)


def cubic_spread(theta: Coordinates, w: Coordinates, parameters: Coordinates) -> Coordinates:
    return (np.sqrt(2.0) * w[0] + 0.0 * theta[0],)


def tuned_loss(theta: Coordinates, x: Any, parameters: Coordinates, lib: Any) -> Any:
    t, penalty = theta
    H, S, mu, N, tau = parameters
    sharpness = H + penalty
    expected = S * S * (1 - lib.exp(-sharpness * tau)) / (N * sharpness)
    return H * (t - mu) * (t - mu) / 2 + penalty * t * t / 2 + x * S * t + expected


def tuned_gradient(theta: Coordinates, x: Coordinates, parameters: Coordinates) -> Coordinates:
    t, penalty = theta
    H, S, mu, N, tau = parameters
    sharpness = H + penalty
    decay = np.exp(-sharpness * tau)
    slope = S * S / N * (tau * decay * sharpness - (1.0 - decay)) / (sharpness * sharpness)
    return H * (t - mu) + penalty * t + S * x[0], t * t / 2 + slope


def tuned_projection(theta: Coordinates, parameters: Coordinates) -> Coordinates:
    return theta[0], np.maximum(theta[1], 0.0)
