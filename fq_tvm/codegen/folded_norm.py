"""What the kernel of batch norm after a quotient computes, stated as loops: a task for some channels, all passes of it.

torch sums each channel in float64, one element after another, which takes as long as so many additions that wait for
one another.  The order is kept here, and several channels are summed side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from ..entry_points import folded_norm_entry_points
from ..schedule import Schedule
from ..spec import FoldedNormSpec
from .expression import fenced, fused
from .loop_nests import loop, over, statement, vector
from .statement import Statement, View, variables
from .vector_loops import int64

TOGETHER = 8
"""Channels that are summed side by side: as many sums as adders have under way, and memory for a second-level cache."""

PIECE = 8
"""Elements of a row that are made at a time, in one vector, before they are added: what is kept on the stack."""


def state(spec: FoldedNormSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State the form of :func:`~fq_tvm.entry_points.folded_norm_entry_points`."""
    del schedule  # decides about threads alone
    form = folded_norm_entry_points(spec)["run"]
    n = variables(form, "float64")
    outer, channels, inner = (n[name] for name in ("outer", "channels", "inner"))
    whole = ("self", "quotient", "out")
    size = outer * channels * inner
    tensors = {
        name: tirx.decl_buffer((size if name in whole else channels,), spec.dtype, name) for name in form.tensors
    }

    def several(first: Any, width: int) -> Any:
        return _Channels(tensors, n, first, width).all()

    def task(t: Any) -> Any:
        first = t * TOGETHER
        rest = loop("c", channels - first, lambda c: several(first + c, 1))
        return tirx.IfThenElse(first + TOGETHER <= channels, several(first, TOGETHER), rest)

    views = [View(name, buffer) for name, buffer in tensors.items()]
    return {"run": [statement(form, views, n, loop("task", over(channels, TOGETHER), task))]}


class _Channels:
    """Some channels, the first of which is an expression."""

    def __init__(self, tensors: dict[str, Any], numbers: dict[str, Any], first: Any, width: int) -> None:
        self.tensors, self.n, self.first, self.width = tensors, numbers, first, width
        self.outer, self.inner = numbers["outer"], numbers["inner"]
        self.sums = tirx.decl_buffer((width,), "float64", "sums")
        self.aside = tirx.decl_buffer((width * PIECE,), "float64", "aside")

    def all(self) -> Any:
        each = range(self.width)
        steps = [
            *map(tirx.AllocBuffer, (self.sums, self.aside)),
            self.summed(self.divided),
            *(self.store("mean", k, (self.sums[k] / self.count("float64")).astype("float32")) for k in each),
            self.summed(self.square),
            *map(self.finish, each),
            loop("o", self.outer, lambda o: self.for_each(lambda k: self.normalize(o, k))),
        ]
        return tirx.SeqStmt(steps)

    def for_each(self, step: Callable[[int], Any]) -> Any:
        steps = [step(k) for k in range(self.width)]
        return tirx.SeqStmt(steps) if len(steps) > 1 else steps[0]

    def count(self, dtype: str, less: int = 0) -> Any:
        return (self.outer * self.inner - less).astype(dtype)

    def of(self, name: str, k: int) -> Any:
        return self.tensors[name][self.first + k]

    def store(self, name: str, k: int, value: Any) -> Any:
        return tirx.BufferStore(self.tensors[name], value, [self.first + k])

    def begin(self, o: Any, k: int) -> Any:
        return (o * self.n["channels"] + self.first + k) * self.inner

    def add(self, k: int, value: Any) -> Any:
        return tirx.BufferStore(self.sums, self.sums[k] + value, [k])

    def summed(self, term: Callable[[int, Any, Any], tuple[Sequence[Any], Any]]) -> Any:
        """State a pass that sums a term of each element; term takes channel, row and column, and may do more."""

        def row(o: Any) -> Any:
            def piece(p: Any) -> Any:
                def lanes(k: int) -> Any:
                    def lane(v: Any) -> Any:
                        done, value = term(k, o, p * PIECE + v)
                        aside = tirx.BufferStore(self.aside, value.astype("float64"), [k * PIECE + v])
                        return tirx.SeqStmt([*done, aside]) if done else aside

                    return vector(PIECE, lane)

                def add(i: Any) -> Any:
                    return self.for_each(lambda k: self.add(k, self.aside[k * PIECE + i]))

                return tirx.SeqStmt([*map(lanes, range(self.width)), loop("i", int64(PIECE), add)])

            def left(i: Any) -> Any:
                def one(k: int) -> Any:
                    done, value = term(k, o, self.inner // PIECE * PIECE + i)
                    added = self.add(k, value.astype("float64"))
                    return tirx.SeqStmt([*done, added]) if done else added

                return self.for_each(one)

            return tirx.SeqStmt([loop("p", self.inner // PIECE, piece), loop("i", self.inner % PIECE, left)])

        clear = [tirx.BufferStore(self.sums, tirx.const(0.0, "float64"), [k]) for k in range(self.width)]
        return tirx.SeqStmt([*clear, loop("o", self.outer, row)])

    def divided(self, k: int, o: Any, i: Any) -> tuple[Sequence[Any], Any]:
        at = self.begin(o, k) + i
        value = self.tensors["self"][at] / self.of("divisor", k)
        return [tirx.BufferStore(self.tensors["quotient"], value, [at])], value

    def square(self, k: int, o: Any, i: Any) -> tuple[Sequence[Any], Any]:
        centered = self.tensors["quotient"][self.begin(o, k) + i] - self.of("mean", k)
        return [], fenced(centered * centered)

    def finish(self, k: int) -> Any:
        """State what follows of the sum of squares of a channel."""
        one, squares = tirx.const(1.0, "float32"), self.sums[k].astype("float32")
        variance, epsilon = (squares / self.count("float32")).astype("float64"), self.n["epsilon"]
        zero = tirx.const(0.0, "float64")
        root = tirx.const(1.0, "float64") / tirx.sqrt(variance + epsilon)
        inverse = tirx.Select(tirx.all(tirx.EQ(variance, zero), tirx.EQ(epsilon, zero)), zero, root).astype("float32")
        new = self.n["momentum"].astype("float32")
        old = one - new
        mean = fenced(new * self.of("mean", k)) + fenced(old * self.of("running_mean", k))
        moved = fused(new, squares / self.count("float32", 1), fenced(old * self.of("running_var", k)))
        return tirx.SeqStmt(
            [
                self.store("inverse", k, inverse),
                self.store("running_mean", k, mean),
                self.store("running_var", k, moved),
            ]
        )

    def normalize(self, o: Any, k: int) -> Any:
        linear = self.of("inverse", k) * self.of("gamma", k)
        constant = fused(self.of("mean", k) * tirx.const(-1.0, "float32"), linear, self.of("beta", k))
        begin = self.begin(o, k)

        def element(i: Any) -> Any:
            value = fused(self.tensors["quotient"][begin + i], linear, constant)
            return tirx.BufferStore(self.tensors["out"], value, [begin + i])

        return loop("i", self.inner, element)
