"""Thousands of wrong calls: each is refused by an error that names the argument, or gives a right answer.

Every public function is called once rightly (`valid_calls`); then one argument at a time is replaced. What must happen
is one of three:

refused   The value has no meaning here: a ValueError or TypeError names the argument.
same      Another form of a right value: the result is that of the value as float64, or it is refused.
open      A value that may have a meaning, such as a huge scale: refused, or every number of the result is finite; or
          an error of the solvers that the docstring announces.

Nothing else may be raised, nothing may warn instead of failing, and each call ends within ten seconds.
"""

import contextlib
import dataclasses
import inspect
import io
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from implicitreg.flow import factorization, geometry, maxmargin, neuron
from implicitreg.gap import one_data_set
from torch import nn
from valid_calls import CALLS, EXEMPT, NO_CALLS, RESULTS, Words, public, target

SECONDS = 10
SHARE = None if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 40  # wrong calls of one function
BIG, TINY = 1e300, 1e-300


class Wrong(NamedTuple):
    """A replacement for one argument: what it is called, how it is made of the right value, and what must happen."""

    what: str
    make: Callable[[Any], Any]
    verdict: str
    as_if: Callable[[Any], Any] | None = None  # of "same": the value that it stands for


def refused(what: str, value: Any) -> Wrong:
    return Wrong(what, value if inspect.isfunction(value) else lambda _: value, "refused")


def same(what: str, make: Callable[[Any], Any], as_if: Callable[[Any], Any] = lambda v: v) -> Wrong:
    return Wrong(what, make, "same", as_if)


def opened(what: str, value: Any) -> Wrong:
    return Wrong(what, value if inspect.isfunction(value) else lambda _: value, "open")


def nothing() -> None:
    """A function of no arguments."""


class Other:
    """Nothing that anything expects."""


NONE = refused("None", None)
STRANGERS = [
    NONE, refused("an object", Other()), refused("a dict", {}), refused("a class", lambda _: Other),
    refused("bytes", b"x"), refused("Ellipsis", ...), refused("an exception", KeyError("x")),
]  # fmt: skip
NO_FUNCTION = [refused("a function", lambda _: nothing), refused("a lambda", lambda _: lambda *a, **k: 1.0)]
NO_ARRAY = [
    refused("an array", np.ones(2)),
    refused("an empty array", np.empty(0)),
    refused("a matrix", np.ones((2, 2))),
]
NO_TENSOR = [refused("a tensor of two", lambda _: torch.ones(2))]


def put(value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The array with one other entry, in a type that holds it."""

    def make(a: np.ndarray) -> np.ndarray:
        a = a.astype(np.result_type(a, type(value))) if not isinstance(value, int) else a.astype(object)
        a.flat[0] = value
        return a

    return make


def ragged(a: np.ndarray) -> list[Any]:
    rows = a.tolist()
    return [*rows[:-1], [rows[-1], [1.0, 2.0]]] if a.ndim == 1 else [*rows, [*rows[-1], rows[-1][0]]]


ARRAYS = [
    *STRANGERS, *NO_FUNCTION, refused("a string", "ab"), refused("an empty string", ""), refused("a set", {1.0}),
    refused("nan", put(float("nan"))), refused("inf", put(float("inf"))), refused("-inf", put(float("-inf"))),
    refused("complex", put(1j)), refused("strings", lambda a: a.astype(str)), refused("ragged", ragged),
    refused("masked", lambda a: np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == 0)),
    refused("an object inside", lambda a: _objects(a, Other())),
    refused("None inside", lambda a: _objects(a, None)),
    refused("dates", lambda a: np.zeros(a.shape, "datetime64[s]")),
    refused("a record", lambda a: np.zeros(a.shape, [("x", float)])),
    refused("a generator", lambda a: (row for row in a)), refused("map", lambda a: map(float, a.ravel())),
    refused("one more axis", lambda a: a[None]), refused("one axis less", lambda a: a[0]),
    refused("a number", lambda a: 1.5), refused("empty", lambda a: a[:0]),
    refused("no columns", lambda a: a[..., :0]), refused("all empty", lambda a: np.empty((0,) * a.ndim)),
    refused("an integer past float64", lambda a: _objects(a, 10**400)),
    refused("a tensor with a graph", lambda a: torch.tensor(a, dtype=torch.float64, requires_grad=True)),
    refused("a tensor elsewhere", lambda a: torch.zeros(a.shape, device="meta")),
    refused("a sparse tensor", lambda a: torch.tensor(a, dtype=torch.float64).to_sparse()),
    refused("a class of numbers", float),
    opened("one row more", lambda a: np.concatenate([a, a[-1:]])), opened("one row less", lambda a: a[:-1]),
    opened("one column more", lambda a: np.concatenate([a, a[..., -1:]], axis=-1)),
    opened("turned", lambda a: a.T.copy()), opened("reversed", lambda a: a[::-1]),
    opened("1e300", lambda a: BIG * a), opened("1e-300", lambda a: TINY * a), opened("minus", lambda a: -a),
    opened("1e10", lambda a: 1e10 * a), opened("1e-10", lambda a: 1e-10 * a),
    opened("1e110", lambda a: 1e110 * a), opened("1e-110", lambda a: 1e-110 * a),
    opened("one entry 1e300", put(BIG)), opened("one row 1e8", lambda a: _one_row(a, 1e8)),
    opened("one row 1e-8", lambda a: _one_row(a, 1e-8)), opened("a zero row", lambda a: _one_row(a, 0.0)),
    opened("a zero column", lambda a: a * (np.arange(a.shape[-1]) > 0)), opened("zero", lambda a: 0 * a),
    opened("2**63", put(2**63)), opened("2**64", put(2**64)), opened("-2**64", put(-(2**64))),
    opened("denormal", lambda a: np.full_like(a, 5e-324, dtype=float)),
    opened("the largest", lambda a: np.full_like(a, np.finfo(float).max, dtype=float)),
    same("a list", lambda a: a.tolist()), same("a tuple", lambda a: tuple(a.tolist())),
    same("a list of rows", list), same("Fortran order", np.asfortranarray),
    same("strided", lambda a: np.repeat(a, 2, axis=0)[::2]), same("a view that is fixed", lambda a: _fixed(a)),
    same("float32", lambda a: a.astype(np.float32), lambda a: a.astype(np.float32).astype(a.dtype)),
    same("float16", lambda a: a.astype(np.float16), lambda a: a.astype(np.float16).astype(a.dtype)),
    same("longdouble", lambda a: a.astype(np.longdouble)),
    same("big-endian", lambda a: a.astype(a.dtype.newbyteorder())),
    same("int8", lambda a: a.astype(np.int8), lambda a: a.astype(np.int8).astype(a.dtype)),
    same("uint64", lambda a: np.abs(a).astype(np.uint64), lambda a: np.abs(a).astype(np.uint64).astype(a.dtype)),
    same("Python integers", lambda a: a.astype(int).tolist(), lambda a: a.astype(int).astype(a.dtype)),
    same("bool", lambda a: a > 0, lambda a: (a > 0).astype(a.dtype)),
    same("objects", lambda a: a.astype(object)),
    same("a tensor", lambda a: torch.tensor(a)),
    same("a masked array without masked entries", np.ma.masked_array),
    same("a matrix of the old class", lambda a: a.view(np.matrix) if a.ndim == 2 else a),
]  # fmt: skip

NUMBERS = [
    *STRANGERS, *NO_FUNCTION, *NO_ARRAY[1:2], *NO_TENSOR, refused("a string", "0.5"), refused("an empty string", ""),
    refused("nan", float("nan")), refused("inf", float("inf")), refused("-inf", float("-inf")),
    refused("NumPy's nan", np.float64("nan")), refused("complex", 1j), refused("complex, real", 0.5 + 0j),
    refused("True", True), refused("NumPy's True", np.True_), refused("an integer past float64", 10**400),
    refused("a date", np.datetime64("2020-01-01")), refused("masked", np.ma.masked),
    refused("a list of two", [0.5, 0.5]),
    refused("a class of numbers", float),
    refused("a tensor with a graph", lambda v: torch.tensor(v, requires_grad=True) * 1),
    opened("a list of one", lambda v: [v]), opened("an array of one", lambda v: np.array([v])),
    opened("a fraction", lambda v: Fraction(v)), opened("-1", -1.0), opened("0", 0.0), opened("-0", -0.0),
    opened("1e300", BIG), opened("1e-300", TINY), opened("denormal", 5e-324), opened("-1e300", -BIG),
    opened("1e60", 1e60), opened("1e110", 1e110), opened("1e-110", 1e-110), opened("1e200", 1e200),
    opened("2**63", 2**63), opened("2**64", 2**64), opened("-2**64", -(2**64)), opened("1e10", 1e10),
    opened("1e-10", 1e-10), opened("1e5", 1e5), opened("times 100", lambda v: 100 * v),
    same("NumPy's", np.float64), same("float32", np.float32, lambda v: float(np.float32(v))),
    same("float16", np.float16, lambda v: float(np.float16(v))), same("longdouble", np.longdouble),
    same("an array without axes", np.array), same("a tensor", lambda v: torch.tensor(v, dtype=torch.float64)),
    same("int", lambda v: int(v) or 1, lambda v: float(int(v) or 1)),
    same("np.int8", lambda v: np.int8(v) or np.int8(1), lambda v: float(int(v) or 1)),
]  # fmt: skip

INTEGERS = [
    *STRANGERS, *NO_FUNCTION, *NO_ARRAY, *NO_TENSOR, refused("a string", "3"), refused("an empty string", ""),
    refused("1.5", 1.5), refused("nan", float("nan")), refused("inf", float("inf")), refused("complex", 1j),
    refused("True", True), refused("NumPy's True", np.True_), refused("NumPy's 1.5", np.float64(1.5)),
    refused("-1", -1), refused("-2**63", -(2**63)), refused("-2**64", -(2**64)), refused("1e300", 1e300),
    refused("a list of two", [1, 1]), refused("masked", np.ma.masked), refused("a class of numbers", int),
    refused("minus NumPy's", np.int8(-1)), refused("a half", Fraction(1, 2)),
    opened("a list of one", lambda v: [v]), opened("0", 0), opened("1", 1), opened("2**63", 2**63),
    opened("2**64", 2**64), opened("2**40", 2**40), opened("10**30", 10**30), opened("10**400", 10**400),
    opened("one more", lambda v: v + 1), opened("a fraction", lambda v: Fraction(v)),
    opened("NumPy's 2**64 - 1", np.uint64(2**64 - 1)),
    same("a whole float", float), same("np.int64", np.int64), same("np.uint8", np.uint8), same("np.int16", np.int16),
    same("an array without axes", np.array), same("a tensor", torch.tensor),
]  # fmt: skip

FLAGS = [
    *STRANGERS, *NO_FUNCTION, *NO_ARRAY, *NO_TENSOR, refused("yes", "yes"), refused("an empty string", ""),
    refused("1", 1), refused("0", 0), refused("2", 2), refused("1.0", 1.0), refused("nan", float("nan")),
    refused("flags", np.array([True, False])), refused("no flags", np.empty(0, bool)), refused("a list", [True]),
    refused("an empty list", []), refused("a class of flags", bool), refused("masked", np.ma.masked),
    same("NumPy's", np.bool_), same("an array without axes", np.array), same("a tensor", torch.tensor),
]  # fmt: skip

OPTIONS = [
    *STRANGERS, *NO_FUNCTION, *NO_ARRAY, *NO_TENSOR, refused("an empty string", ""),
    refused("another", "no such option"),
    refused("5", 5), refused("nan", float("nan")), refused("True", True), refused("a list", lambda v: [v]),
    refused("capitals", lambda v: v.upper() + "X"), refused("with a space", lambda v: v + " "), refused("a class", str),
    refused("an array of it", lambda v: np.array([v])), same("NumPy's", np.str_),
]  # fmt: skip

TEXTS = [
    *STRANGERS, *NO_FUNCTION, *NO_ARRAY, *NO_TENSOR, refused("5", 5), refused("nan", float("nan")),
    refused("a list", lambda v: [v]), refused("a class", str), same("NumPy's", np.str_),
]  # fmt: skip

TENSORS = [
    *STRANGERS, *NO_FUNCTION, refused("a string", "ab"), refused("5", 5), refused("1.5", 1.5),
    refused("a list of words", ["a"]),
    refused("empty", lambda t: t[:0]), refused("complex", lambda t: t.to(torch.complex128)),
    refused("elsewhere", lambda t: t.to("meta")), refused("no columns", lambda t: t[..., :0]),
    refused("without axes", torch.tensor(1.0)), refused("sparse", lambda t: t.to_sparse()),
    refused("nan", lambda t: _entry(t, float("nan"))), refused("inf", lambda t: _entry(t, float("inf"))),
    refused("a class", torch.Tensor),
    opened("an array", lambda t: t.detach().numpy()), opened("a list", lambda t: t.tolist()),
    opened("one axis more", lambda t: t[None]), opened("one axis less", lambda t: t[0]),
    opened("one row less", lambda t: t[:-1]), opened("one row more", lambda t: torch.cat([t, t[-1:]])),
    opened("one column less", lambda t: t[..., :-1]), opened("float16", lambda t: t.to(torch.float16)),
    opened("float32", lambda t: t.to(torch.float32)), opened("int32", lambda t: t.to(torch.int32)),
    opened("bool", lambda t: t > 0), opened("zero", lambda t: 0 * t), opened("1e300", lambda t: t * BIG),
    opened("1e-300", lambda t: t * TINY), opened("minus", lambda t: -t), opened("a million", lambda t: _entry(t, 1e6)),
    opened("with a graph", lambda t: t.clone().requires_grad_() if t.is_floating_point() else t),
    opened("expanded", lambda t: t[:1].expand_as(t)),
    same("a copy", torch.clone), same("strided", lambda t: t.repeat_interleave(2, 0)[::2]),
]  # fmt: skip

FUNCTIONS = [
    *STRANGERS[:3], *NO_ARRAY, *NO_TENSOR, refused("a string", "f"), refused("5", 5), refused("True", True),
    refused("of no arguments", lambda _: nothing), refused("of seven", lambda _: lambda a, b, c, d, e, f, g: a),
    refused("without a result", lambda _: lambda *a: None), refused("of words", lambda _: lambda *a: "x"),
    refused("of another shape", lambda _: lambda *a: np.ones((7, 3, 2))),
    refused("of nan", lambda _: lambda *a: float("nan")),
    refused("of objects", lambda _: lambda *a: Other()), refused("of a dict", lambda _: lambda *a: {}),
    refused("a class of no arguments", lambda _: Other),
]  # fmt: skip

SEQUENCES = [
    *STRANGERS, *NO_FUNCTION, refused("5", 5), refused("1.5", 1.5), refused("True", True), refused("a string", "ab"),
    refused("None inside", lambda v: [None] * len(v)), refused("words inside", lambda v: ["a"] * len(v)),
    refused("objects inside", lambda v: [Other()] * len(v)), refused("nan inside", lambda v: [float("nan")] * len(v)),
    refused("a class", list), refused("without axes", np.array(1.0)), refused("dicts inside", lambda v: [{}] * len(v)),
    opened("empty", []), opened("twice as long", lambda v: list(v) * 2), opened("one less", lambda v: list(v)[:-1]),
    same("a list", list), same("a tuple", tuple), same("a generator", lambda v: (x for x in v)),
]  # fmt: skip

OBJECTS = [
    *STRANGERS, *NO_FUNCTION, *NO_ARRAY, *NO_TENSOR, refused("a string", "x"), refused("5", 5), refused("1.5", 1.5),
    refused("True", True), refused("a list", []), refused("its class", lambda v: type(v)),
    refused("the object in a list", lambda v: [v]),
    refused("a module of Python", np.random),
]  # fmt: skip

MAPPINGS = [
    NONE, *STRANGERS[1:2], *STRANGERS[3:], refused("5", 5), refused("a string", "x"), refused("a list", [1]),
    *NO_ARRAY, refused("True", True),
]  # fmt: skip


def _objects(a: np.ndarray, value: Any) -> np.ndarray:
    a = a.astype(object)
    a.flat[0] = value
    return a


def _one_row(a: np.ndarray, factor: float) -> np.ndarray:
    a = a.astype(float)
    a[0] *= factor
    return a


def _fixed(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.setflags(write=False)
    return a


def _entry(t: torch.Tensor, value: float) -> torch.Tensor:
    t = t.clone() if t.is_floating_point() or np.isfinite(value) else t.double()
    t.view(-1)[0] = value
    return t


def wrong(value: Any) -> list[Wrong]:
    """What may stand wrongly in place of a right value."""
    kinds: list[tuple[Any, list[Wrong]]] = [
        (np.ndarray, ARRAYS), (bool, FLAGS), (int, INTEGERS), (float, NUMBERS), (Words, TEXTS), (str, OPTIONS),
        (torch.Tensor, TENSORS), (list | tuple, SEQUENCES), (nn.Module, OBJECTS), (Mapping, MAPPINGS),
    ]  # fmt: skip
    for kind, replacements in kinds:
        if isinstance(value, kind):
            return replacements
    return FUNCTIONS if inspect.isroutine(value) or isinstance(value, np.ufunc) else OBJECTS


# --- what documentation says of single arguments --------------------------------------------------------------------


class Any_(frozenset):
    """All replacements."""

    def __contains__(self, what: object) -> bool:
        return True


SHAPES = {"one more axis", "one axis less", "a number", "empty", "no columns", "all empty", "a matrix", "an array"}
UNSEEN = {"without a result", "of words", "of another shape", "of nan", "of objects", "of a dict"}
MEANINGS: list[tuple[str, set[str], set[str] | Any_]] = [
    (r"diagrams.landscapes.*", {"thetas", "x"}, SHAPES),
    (r"ensembles.estimate", {"draws"}, SHAPES | {"a tensor with a graph"}),
    (r"problems.*|diagrams.corollaries.gdc.regularizer", {"theta", "thetas", "theta0"}, {"a tensor with a graph"}),
    (r"flow.geometry.*", {"p"}, {"inf"}),
    (r"gap.onestep.variance", {"M"}, {"inf"}),
    (r"gap.one_data_set.fixed_horizon", {"tau"}, SHAPES),
    (r"noise.sampling.centre", {"epsilon"}, SHAPES),
    (r"flow.maxmargin.*|flow.incremental.crossing_times", {"w", "level", "k"}, SHAPES | {"a list of two"}),
    (r"ensembles.particles.*", {"control"}, {"a list"}),
    (r"ensembles.particles.atoms", {"values"}, SHAPES),
    (
        r"flow.neuron.Activation",
        {"value", "inverse", "derivative"},
        UNSEEN,
    ),  # called where they are used, and looked at
    (r"flow.geometry.Potential", {"link", "inverse_link", "inverse_link_derivative"}, UNSEEN),
    (r"plotting.frames", {"draw"}, UNSEEN),
    (r"plotting.frames", {"values"}, Any_()),  # handed to draw
    (r"plotting.frames", {"labels", "alts"}, {"words inside"}),
    (r"records.*", {"folder", "path"}, {"a string"}),
    (r"nets.GhostBatchNorm.forward", {"x"}, {"nan", "inf"}),
    (r"plotting.interval", {"samples"}, SHAPES),
    (r"checks.(check|record)", {"measured", "predicted", "wrong", "below", "atol"}, Any_()),
    (r"checks.(check|record)", {"says"}, {"None"}),
    (r"checks.say", {"steps"}, Any_()),  # prints what there is
    (r"exercises.(check|grade)", {"answer"}, Any_()),  # judges what there is
    (r"problems.kinks", {"value"}, Any_()),  # reads the graph, not the numbers
]
"""(functions, arguments, replacements that are right there by the docstring): these are `open`."""


def verdict(name: str, argument: str, call: Wrong) -> str:
    for pattern, arguments, meant in MEANINGS:
        if re.fullmatch(pattern, name) and argument in arguments and call.what in meant:
            return "open"
    return call.verdict


# --- one call -------------------------------------------------------------------------------------------------------


class Late(BaseException):
    """A call has not ended in time."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise Late

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)  # of the processor: other processes do not count
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Outcome(NamedTuple):
    result: Any
    error: BaseException | None
    warned: list[str]


def outcome(function: Callable[..., Any], arguments: Mapping[str, Any], seconds: float = SECONDS) -> Outcome:
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            with limited(seconds):
                result = function(**arguments)
        except (Exception, Late) as error:
            return Outcome(None, error, [])
        finally:
            plt.close("all")
        said = [w for w in caught if not issubclass(w.category, DeprecationWarning)]  # torch speaks of itself
        return Outcome(result, None, [f"{w.category.__name__}: {w.message}" for w in said])


def numbers(thing: Any, depth: int = 6) -> list[np.ndarray]:
    """All the numbers in a result, in order; integers and fractions are finite, however long."""
    if isinstance(thing, torch.Tensor):
        return [] if thing.is_meta else [thing.detach().double().numpy()]
    if isinstance(thing, int | Fraction):
        return [np.array(float(thing) if abs(thing) < BIG else BIG)]
    if isinstance(thing, float | np.generic | np.ndarray):
        a = np.asarray(thing)
        return [a] if a.dtype.kind in "biufc" else []
    if isinstance(thing, nn.Module):
        thing = list(thing.state_dict().values())
    elif isinstance(thing, Mapping):
        thing = list(thing.values())
    elif dataclasses.is_dataclass(thing):
        thing = [getattr(thing, f.name) for f in dataclasses.fields(thing)]
    if depth == 0 or not isinstance(thing, list | tuple):
        return []
    return [a for part in thing for a in numbers(part, depth - 1)]


def agree(one: Any, other: Any) -> bool:
    a, b = numbers(one), numbers(other)
    return len(a) == len(b) and all(
        x.shape == y.shape and np.allclose(x, y, rtol=1e-9, atol=1e-12, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def named(error: BaseException, names: set[str]) -> bool:
    return any(re.search(rf"(?<![A-Za-z0-9_]){re.escape(n)}(?![A-Za-z0-9])", str(error)) for n in names)


def held(a: np.ndarray, words: str) -> bool:
    """Whether the numbers are finite, or infinite or NaN where the docstring says so."""
    words = words.lower()
    endless = "infinite" in words or "infinity" in words
    return bool(np.isfinite(a).all() or "nan" in words or (endless and not np.isnan(a).any()))


def own(error: BaseException) -> bool:
    return type(error).__module__.startswith("implicitreg")


def announced(error: BaseException, words: str) -> bool:
    """An error of the package's own, of a class that the docstring names."""
    kinds = {kind.__name__ for kind in type(error).__mro__} - {"Exception", "BaseException", "object"}
    ours = own(error) or type(error) in (ArithmeticError, FloatingPointError)
    return ours and any(re.search(rf"\b{kind}\b", words) for kind in kinds)


def fault(name: str, argument: str, call: Wrong) -> str | None:
    """What is wrong with the answer to a wrong call, or None."""
    return judged(lambda **arguments: target(name)(**arguments), argument, call, CALLS[name],
                  verdict(name, argument, call), inspect.getdoc(public()[name]) or "")  # fmt: skip


def judged(
    function: Callable[..., Any], argument: str, call: Wrong, arguments: Callable[[], dict[str, Any]],
    must: str | None = None, words: str = "", seconds: float = SECONDS,
) -> str | None:  # fmt: skip
    """The same for any function, whose docstring has these words."""
    must, right = must or call.verdict, arguments()
    found = outcome(function, {**right, argument: call.make(right[argument])}, seconds)
    if isinstance(found.error, Late):
        return f"no end within {seconds} s"
    if found.error is not None:
        return of_error(argument, must, right, found.error, words)
    if found.warned:
        return f"warns: {found.warned[0][:100]}"
    if must == "refused":
        return f"not refused: {str(found.result)[:60]!r}"
    if not all(held(a, words) for a in numbers(found.result)):
        return f"not finite: {str(found.result)[:60]!r}"
    if must == "open" or call.as_if is None:
        return None
    right = arguments()
    stands_for = outcome(function, {**right, argument: call.as_if(right[argument])}, seconds)
    if stands_for.error is not None:
        return f"not refused, as {call.as_if(right[argument])!r} is: {str(stands_for.error)[:100]}"
    return None if agree(found.result, stands_for.result) else f"differs: {str(found.result)[:80]!r}"


def of_error(argument: str, must: str, right: Mapping[str, Any], error: BaseException, words: str) -> str | None:
    """What is wrong with an error, or None."""
    plain = type(error) in (ValueError, TypeError) or (own(error) and isinstance(error, ValueError | TypeError))
    if not plain and not (must == "open" and announced(error, words)):
        return f"raises {type(error).__name__}: {str(error)[:150]}"
    names = {argument} if must == "refused" else {argument, *right}
    return None if named(error, names) else f"not named: {type(error).__name__}: {str(error)[:150]}"


# --- the calls ------------------------------------------------------------------------------------------------------


def optional(name: str) -> set[str]:
    """The arguments that may be None."""
    parameters = inspect.signature(public()[name]).parameters.values()
    return {p.name for p in parameters if p.default is None or "None" in str(p.annotation)}


@cache
def wrong_calls(name: str) -> list[tuple[str, Wrong]]:
    """The wrong calls of a function, all or a share that is drawn the same way every time."""
    calls = [
        (argument, call)
        for argument, value in CALLS[name]().items()
        if value is not None
        for call in wrong(value)
        if not (call is NONE and argument in optional(name))
    ]
    if SHARE is None or len(calls) <= SHARE:
        return calls
    drawn = np.random.default_rng(list(name.encode())).choice(len(calls), SHARE, replace=False)
    return [calls[i] for i in sorted(drawn)]


def test_every_public_function_has_a_right_call():
    assert set(public()) == set(CALLS) | RESULTS | set(NO_CALLS) | set(EXEMPT)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_right_call_is_answered_and_leaves_its_arguments(name):
    arguments = CALLS[name]()
    before = {key: numbers(value) for key, value in arguments.items() if isinstance(value, np.ndarray)}
    found = outcome(target(name), arguments)
    assert found.error is None
    assert not found.warned
    assert all(np.isfinite(a).all() for a in numbers(found.result))
    for key, parts in before.items():
        np.testing.assert_array_equal(arguments[key], parts[0])


@pytest.fixture
def little_patience(monkeypatch, tmp_path):
    """Flows that cannot be followed are given up soon; what is written goes elsewhere."""
    monkeypatch.chdir(tmp_path)
    for module, name, most in (
        (factorization, "_MOST_CALLS", 3000), (geometry, "_MOST_CALLS", 4000), (maxmargin, "_MOST_CALLS", 4000),
        (neuron, "_MOST_CALLS", 5000), (one_data_set, "MAX_VELOCITIES", 500),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, most)


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("name", sorted(name for name in CALLS if wrong_calls(name)))
def test_wrong_calls_are_refused_or_answered_rightly(name):
    faults = {f"{argument} = {call.what}": fault(name, argument, call) for argument, call in wrong_calls(name)}
    assert not (found := {key: text for key, text in faults.items() if text}), found


HAND_ON = {"checks.say", "plotting.band", "plotting.path"}
"""Functions that take keywords of any name."""


@pytest.mark.parametrize("name", sorted(CALLS))
def test_missing_double_and_unknown_arguments_are_named(name):
    arguments = CALLS[name]()
    if name not in HAND_ON:
        with pytest.raises(TypeError, match="no_such_argument"):
            target(name)(**arguments, no_such_argument=1)
    for parameter in inspect.signature(target(name)).parameters.values():
        if parameter.default is parameter.empty and parameter.name in arguments:
            with pytest.raises(TypeError, match=rf"\b{parameter.name}\b"):
                target(name)(**{key: value for key, value in arguments.items() if key != parameter.name})
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and list(arguments)[:1] == [parameter.name]:
            with pytest.raises(TypeError, match=rf"\b{parameter.name}\b"):
                target(name)(arguments[parameter.name], **arguments)


def test_control_faults_are_seen():
    """Functions that raise the wrong error, name nothing, return NaN, warn, do not end, or accept everything."""

    def right(x: float) -> float:
        if not isinstance(x, float) or not abs(x) < BIG:
            raise ValueError(f"x = {x!r}: expected a finite number")
        return 2 * x

    def key(x):
        return {0.5: 1.0}[x]

    def nameless(x):
        raise ValueError("no")

    def silent(x):
        return float("nan")

    def warning(x):
        return np.float64(1) / np.zeros(1)

    def endless(x):
        while True:
            pass

    one = refused("nan", float("nan"))
    assert judged(right, "x", one, lambda: {"x": 0.5}) is None
    for function, word in ((key, "raises KeyError"), (nameless, "not named"), (silent, "not refused"),
                           (warning, "warns"), (abs_, "not refused")):  # fmt: skip
        assert judged(function, "x", one, lambda: {"x": 0.5}).startswith(word)
    assert judged(silent, "x", opened("1", 1.0), lambda: {"x": 0.5}).startswith("not finite")
    assert judged(endless, "x", one, lambda: {"x": 0.5}, seconds=0.1).startswith("no end")
    differs = same("a list", lambda x: [x, x])
    assert judged(lambda x: np.sum(x), "x", differs, lambda: {"x": 0.5}).startswith("differs")


def abs_(x: Any) -> float:
    return 0.0


def test_there_are_thousands_of_wrong_calls():
    assert sum(len(wrong_calls(name)) for name in CALLS) >= 2000
