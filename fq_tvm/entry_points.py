"""The contract between generated code and whoever calls it: every function of a kernel, stated once.

A kernel's object code has one *form* of the computation or several, and of each form some *variants*: the same
computation under another schedule.  Code generation defines functions from this module, a launch calls through it, and
nobody else spells the name of a function or counts its arguments.  Arguments come in the order tensors, scalars,
integers.  Of a tensor only the address counts; scalars are float32 (float64 on the wide path), integers int64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .layout import MAX_RANK
from .spec import (
    FakeQuantSpec,
    FoldedNormGradientSpec,
    FoldedNormSpec,
    FoldedWeightsGradientSpec,
    FoldedWeightsSpec,
    LearnableGradientSpec,
    ObservedParametersSpec,
    QuotientGradientSpec,
    RangeSpec,
    StraightThroughSpec,
)
from .target import Target

ELEMENTWISE = ("self", "out", "mask")
"""Tensors with an element for each iteration, in the order in which a layout has their strides."""

LOOPS = tuple(f"n{i}" for i in range(MAX_RANK))
"""Extents of loops of any strides, the outermost first."""

RANGE_VECTOR = 32
"""Elements of a row or a run whose range a kernel keeps in registers at a time; they have to be as long."""

RANGE_TILE = 2048
"""Elements of a run that make a task: few enough for what is kept of them to stay in the first-level cache."""

LINE = 16
"""Elements of 4 bytes that fill a line of the caches."""

SPREAD = ("parallel", "nontemporal")
"""Variants that spread their tasks over threads."""


@dataclass(frozen=True)
class Form:
    """One computation, and the functions that are made of it.

    Parameters
    ----------
    name : str
        ``"run"`` does the whole work, or what the others leave; ``"long"`` the same, with a task for each row.
        ``"blocked"`` does whole blocks of runs, ``"direct"`` all of it where expanding does not pay, and ``"expand"``
        fills the workspace, before those that read it.
    tensors : tuple of str
        Whose addresses a function takes.
    results : tuple of str
        Those of them that it writes.
    scalars, integers : tuple of str
        The numbers that it takes.
    variants : tuple of str
        ``"serial"`` runs in the calling thread, ``"parallel"`` on several, and ``"nontemporal"`` writes past the caches
        as well, where the target can.  An expansion has its ``"channels"`` or their ``"inner"`` repetition innermost.
    """

    name: str
    tensors: tuple[str, ...]
    results: tuple[str, ...]
    scalars: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    variants: tuple[str, ...] = ("serial", "parallel")

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the scalars and the integers, in order."""
        return (*self.scalars, *self.integers)

    def function(self, variant: str) -> str:
        """Return the name of a variant's function in the object code."""
        assert variant in self.variants, f"{self.name} has no variant {variant}"
        return f"{self.name}_{variant}"

    def functions(self, target: Target) -> dict[str, str]:
        """Return the names of the functions that code for a target has, by variant."""
        there = (v for v in self.variants if v != "nontemporal" or target.nontemporal_stores)
        return {variant: self.function(variant) for variant in there}

    def order(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the numbers in the order of the arguments."""
        return tuple(values[name] for name in self.numbers)


@dataclass(frozen=True)
class Workspace:
    """What an expansion leaves for the forms that read it: vectors as long as a run side by side, then a flag.

    Behind them may lie what a form needs for itself while it runs, from the next line of the caches on.

    Parameters
    ----------
    vectors : tuple of str
        Their names, in order.  An element has 4 bytes.
    flag : str
        Name of an int32 behind the vectors; empty for none.
    """

    vectors: tuple[str, ...]
    flag: str = ""

    def start(self, name: str, run: Any) -> Any:
        """Return where a vector or the flag begins, in elements of 4 bytes, for runs of so many elements."""
        return run * (*self.vectors, self.flag).index(name)

    def scratch(self, run: Any) -> Any:
        """Return where the memory of a form begins that no other one reads, in elements of 4 bytes."""
        return (len(self.vectors) * run + (bool(self.flag) + LINE - 1)) // LINE * LINE

    def size(self, run: int, scratch: int = 0) -> int:
        """Return the bytes that runs of so many elements need, and a form that has so many of 4 bytes for itself."""
        return 4 * (self.scratch(run) + scratch if scratch else len(self.vectors) * run + bool(self.flag))


@dataclass(frozen=True)
class EntryPoints:
    """All functions of a kernel.

    Parameters
    ----------
    tensors : tuple of str
        The operator's signature: what a caller hands over, in this order, and after it the workspace.
    forms : tuple of Form
        Each of another name.
    workspace : Workspace, optional
        Of forms that take the tensor ``"workspace"``.
    """

    tensors: tuple[str, ...]
    forms: tuple[Form, ...]
    workspace: Workspace | None = None

    def __contains__(self, name: str) -> bool:
        return any(form.name == name for form in self.forms)

    def __getitem__(self, name: str) -> Form:
        return next(form for form in self.forms if form.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return the contract as a dictionary that :func:`json.dumps` takes; it is a part of a kernel's identity."""
        return asdict(self)


def folds(spec: FakeQuantSpec) -> bool:
    """Whether a kernel takes zero points off the range, see :func:`fq_tvm.codegen.expression.fold`.

    Those of the contiguous classes whose arithmetic allows it, where arithmetic limits them: rows, and lanes that
    convert values.  For lanes of float32 a second form of the code would buy nothing.
    """
    converts = (spec.dtype, spec.out_dtype) != ("float32", "float32")
    contiguous = spec.iteration == "rows" or (spec.iteration == "lanes" and converts)
    integers = not spec.float_zero_point and spec.zero_point_placement == "after"
    return contiguous and integers and not spec.wide


def strided_loops(tensors: Sequence[str] = ELEMENTWISE) -> tuple[str, ...]:
    """Name the integers of loops of any strides: eight extents, then as many strides of each tensor."""
    return (*LOOPS, *(f"{tensor}_stride{i}" for tensor in tensors for i in range(MAX_RANK)))


def fake_quant_entry_points(spec: FakeQuantSpec) -> EntryPoints:
    """State the functions of a kernel of fake quantization.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.

    Returns
    -------
    EntryPoints
        Scalars are the range, see :func:`fq_tvm.spec.quant_range_scalars`.  Integers are, by class:

        - *rows*: the extents outer, channels and inner.
        - *lanes*, run: first, the element to begin at; runs; run, the elements of one; tail, those after the last.
          Blocked: blocks, run.  Direct: outer, channels.
        - *strided*: eight loop extents, the last of which are the channel's and, for rows, the inner one, and eight
          strides each of self and the results.
        - expand: how often the whole is repeated, the channels, and how often each is repeated within it.

        Where scale and zero point are read, their strides follow.  Strides count elements.
    """
    range_scalars = ("quant_min", "quant_max", *(("least", "greatest") if spec.wide else ()))
    variants = ("serial", "parallel", *(("nontemporal",) if spec.nontemporal else ()))
    direct = ("self", "scale", "zero_point", *spec.results)
    vector_strides = ("scale_stride", "zero_point_stride")
    loops = strided_loops(("self", *spec.results))

    def form(name: str, tensors: tuple[str, ...], *integers: str) -> Form:
        return Form(name, tensors, spec.results, range_scalars, integers, variants)

    if spec.iteration == "rows":
        extents = ("outer", "channels", "inner", *vector_strides)
        return EntryPoints(direct, (form("run", direct, *extents), form("long", direct, *extents)))
    if spec.iteration == "strided_rows":
        return EntryPoints(direct, (form("run", direct, *loops, *vector_strides),))
    expanded = ("self", "workspace", *spec.results)
    expand = Form(
        "expand",
        ("scale", "zero_point", "workspace"),
        ("workspace",),
        integers=("copies", "channels", "inner", *vector_strides),
        variants=("channels",) if spec.strided else ("channels", "inner"),
    )
    vectors = ("zero_point", "scale") if spec.form == "division" else ("inverse_scale", "zero_point", "scale")
    workspace = Workspace(vectors, "foldable" if folds(spec) else "")
    if spec.strided:
        return EntryPoints(direct, (expand, form("run", expanded, *loops)), workspace)
    forms = (
        expand,
        form("run", expanded, "first", "runs", "run", "tail"),
        form("blocked", expanded, "blocks", "run"),
        form("direct", direct, "outer", "channels", *vector_strides),
    )
    return EntryPoints(direct, forms, workspace)


def straight_through_entry_points(spec: StraightThroughSpec) -> EntryPoints:
    """State the functions of a kernel of the gradient: one form, whose integers are those of rows.

    Parameters
    ----------
    spec : StraightThroughSpec
        The kernel.
    """
    tensors = ("self", "mask", "out")
    integers = strided_loops() if spec.strided else ("outer", "channels", "inner")
    variants = ("serial", "parallel", *(("nontemporal",) if spec.nontemporal else ()))
    run = Form("run", tensors, ("out",), integers=integers, variants=variants)
    return EntryPoints(tensors, (run,))


def range_entry_points(spec: RangeSpec) -> EntryPoints:
    """State the functions of a kernel of the range.

    Parameters
    ----------
    spec : RangeSpec
        The kernel.

    Returns
    -------
    EntryPoints
        The first form leaves partial results in the workspace, ``"combine"`` makes the range of them.  Shares of the
        work are a matter of these integers, so that results do not depend on the number of threads:

        - *rows*: the extents outer, channels and inner; parts, into which outer is divided, each of so many as per
          says; pieces, into which inner is divided, each of a length.  ``"short"`` serves lengths below
          :data:`RANGE_VECTOR`.
        - *lanes*: size; run, the elements of one; parts, each of so many runs as per says; tiles of a run.  ``"short"``
          serves runs below :data:`RANGE_VECTOR`, of tensors that have no more.
        - *strided*: eight loop extents and strides of self; parts of the first loop, each of so many iterations as per
          says; for lanes, tiles of the channels.
        - combine: partial results are of shape (shares, copies, channels, inner).
    """
    tensors = ("self", "least", "greatest")
    if spec.strided:
        loops = (*LOOPS, *(f"self_stride{i}" for i in range(MAX_RANK)))
        runs = {"run": (*loops, "parts", "per", *(("tiles",) if spec.lanes else ()))}
    else:
        rows = ("outer", "channels", "inner", "parts", "per", "pieces", "length")
        lanes = ("size", "run", "parts", "per", "tiles")
        runs = dict.fromkeys(("run", "short"), lanes if spec.lanes else rows)
    forms = [Form(name, ("self", "workspace"), ("workspace",), integers=numbers) for name, numbers in runs.items()]
    combine = Form(
        "combine", ("workspace", "least", "greatest"), tensors[1:], integers=("shares", "copies", "channels", "inner")
    )
    return EntryPoints(tensors, (*forms, combine), Workspace(("signed", "unsigned", "smallest")))


def range_scratch(run: Any, tiles: Any) -> Any:
    """Return how many elements a task of lanes keeps for itself: two for each lane of its vectors.

    Parameters
    ----------
    run, tiles : int or Expr
        The numbers of these names.  The last tile is the longest, and its last vector overlaps.
    """
    return (run - run // tiles * (tiles - 1) + (RANGE_VECTOR - 1)) // RANGE_VECTOR * (2 * RANGE_VECTOR)


def learnable_gradient_entry_points(spec: LearnableGradientSpec) -> EntryPoints:
    """State the functions of a kernel of the gradient by x, scale and zero point.

    Parameters
    ----------
    spec : LearnableGradientSpec
        The kernel.

    Returns
    -------
    EntryPoints
        The first form writes the gradient by x and leaves sums of shares in the workspace, of which ``"combine"`` makes
        those of the channels.  Scalars are the range and the factor of both sums.  Integers of rows and of combine are
        those of :func:`range_entry_points`; of lanes the extents outer and channels, parts of outer, each of so many as
        per says, and tiles of the channels.
    """
    tensors = ("self", "grad", "scale", "zero_point", "out", "scale_grad", "zero_point_grad")
    rows = ("outer", "channels", "inner", "parts", "per", "pieces", "length")
    lanes = ("outer", "channels", "parts", "per", "tiles")
    run = Form(
        "run",
        (*tensors[:5], "workspace"),
        ("out", "workspace"),
        ("quant_min", "quant_max", "factor"),
        lanes if spec.lanes else rows,
    )
    combine = Form(
        "combine", ("workspace", *tensors[5:]), tensors[5:], integers=("shares", "copies", "channels", "inner")
    )
    return EntryPoints(tensors, (run, combine), Workspace(("scale_sums", "zero_point_sums")))


def quotient_gradient_entry_points(spec: QuotientGradientSpec) -> EntryPoints:
    """State the functions of a kernel of the gradient of a quotient: one form of rows, with contiguous divisors.

    Parameters
    ----------
    spec : QuotientGradientSpec
        The kernel.
    """
    del spec  # all are called alike
    tensors = ("self", "grad", "divisor", "out", "by_divisor")
    return EntryPoints(tensors, (Form("run", tensors, tensors[3:], integers=("outer", "channels", "inner")),))


def observed_parameters_entry_points(spec: ObservedParametersSpec) -> EntryPoints:
    """State the function of a kernel of the parameters of an observed range, which runs in the calling thread.

    Parameters
    ----------
    spec : ObservedParametersSpec
        The kernel.

    Returns
    -------
    EntryPoints
        Vectors of a channel each; of the last tensor, one int32, 1 if the others were written and 0 if none was.
        Scalars are the weight of what is current and the range of integers.  Integers: the channels; whether the
        current range is taken in, and whether parameters are chosen.
    """
    del spec  # both are called alike
    results = ("running_least", "running_greatest", "scale", "zero_point", "served")
    tensors = ("least", "greatest", *results)
    scalars, integers = ("constant", "quant_min", "quant_max"), ("channels", "observes", "chooses")
    return EntryPoints(tensors, (Form("run", tensors, results, scalars, integers, ("serial",)),))


def folded_weights_entry_points(spec: FoldedWeightsSpec) -> EntryPoints:
    """State the functions of a kernel of folded weights.

    Parameters
    ----------
    spec : FoldedWeightsSpec
        The kernel.

    Returns
    -------
    EntryPoints
        ``"run"`` takes the weights and, of each channel, batch norm's weight, its standard deviation and the range
        observed so far.  It writes what the weights become, its mask, and what they were multiplied with, and leaves
        aside what it observed, which ``"commit"`` makes known: all of it and a 1, or nothing and a 0.  Scalars are the
        weight of what is current and the range of integers.  Integers: the channels, the elements of each, and whether
        the current range is taken in.
    """
    del spec  # all are called alike
    given, made = ("self", "gamma", "sigma"), ("out", "mask", "factor")
    running = ("running_least", "running_greatest")
    committed = (*running, "scale", "zero_point", "served")
    scalars, integers = ("constant", "quant_min", "quant_max"), ("channels", "inner", "observes")
    run = Form("run", (*given, *running, *made, "workspace"), (*made, "workspace"), scalars, integers)
    commit = Form("commit", (*committed, "workspace"), committed, integers=("channels",), variants=("serial",))
    workspace = Workspace(("least", "greatest", "scale", "zero_point", "served"))
    return EntryPoints((*given, *committed, *made), (run, commit), workspace)


def folded_weights_gradient_entry_points(spec: FoldedWeightsGradientSpec) -> EntryPoints:
    """State the function of a kernel of the gradient of folded weights, all of whose tensors are contiguous.

    Parameters
    ----------
    spec : FoldedWeightsGradientSpec
        The kernel.

    Returns
    -------
    EntryPoints
        Of each channel it takes what its weights were multiplied with, what that was divided by, and the gradient by it
        that came another way, and writes the gradient by what was divided.  Integers: the channels, and the elements of
        each.
    """
    del spec  # all are called alike
    results = ("out", "by_gamma")
    tensors = ("self", "grad", "mask", "factor", "sigma", "by_factor", *results)
    return EntryPoints(tensors, (Form("run", tensors, results, integers=("channels", "inner")),))


def folded_norm_entry_points(spec: FoldedNormSpec) -> EntryPoints:
    """State the function of a kernel of batch norm after a quotient, all of whose tensors are contiguous.

    Parameters
    ----------
    spec : FoldedNormSpec
        The kernel.

    Returns
    -------
    EntryPoints
        Of each channel it takes the divisor, batch norm's weight and bias and its running statistics, which it moves,
        and writes the mean and the inverse of the deviation.  Scalars are float64: the weight of what is current, and
        what is added to a variance.  Integers: the extents outer, channels and inner.
    """
    del spec  # all are called alike
    results = ("running_mean", "running_var", "quotient", "out", "mean", "inverse")
    tensors = ("self", "divisor", "gamma", "beta", *results)
    return EntryPoints(
        tensors, (Form("run", tensors, results, ("momentum", "epsilon"), ("outer", "channels", "inner")),)
    )


def folded_norm_gradient_entry_points(spec: FoldedNormGradientSpec) -> EntryPoints:
    """State the function of a kernel of the gradient of batch norm after a quotient, with contiguous tensors.

    Parameters
    ----------
    spec : FoldedNormGradientSpec
        The kernel.

    Returns
    -------
    EntryPoints
        Of each channel it takes the divisor, batch norm's weight, the mean and the inverse of the deviation, and writes
        the gradients by divisor, weight and bias.  ``out`` may lie where ``grad`` does.
    """
    del spec  # all are called alike
    results = ("out", "by_divisor", "by_gamma", "by_beta")
    tensors = ("self", "grad", "divisor", "gamma", "mean", "inverse", *results)
    return EntryPoints(tensors, (Form("run", tensors, results, integers=("outer", "channels", "inner")),))
