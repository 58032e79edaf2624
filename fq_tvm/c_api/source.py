"""The texts of a C library: what the contract of entry points, schedules and boundaries say, as tables of C.

What calls them stands in ``fq_tvm.c``, in C; what it has to know of a kernel comes from here alone.
"""

from __future__ import annotations

import importlib.resources
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .. import __version__
from ..entry_points import EntryPoints, Form
from ..errors import BuildError, FqError
from ..launch import plan
from ..launch.choose import rows_min_inner
from ..layout import MAX_RANK
from ..schedule import Schedule
from ..spec import NARROW_LIMIT, FakeQuantSpec, StraightThroughSpec
from ..target import Target

LAUNCHER = "fq_tvm_launcher"
"""The variable of fq_tvm.c through which kernels launch their tasks."""

FORMS = {"run": "run", "long": "long_", "blocked": "blocked", "direct": "direct", "expand": "expand"}
"""Forms that fq_tvm.c calls, and its fields for them."""

VARIANTS = ("serial", "parallel", "nontemporal")
EXPANSIONS = ("channels", "inner")
"""Variants in the order in which fq_tvm.c numbers them, of an expansion and of any other form."""

NEEDED = {
    "rows": ("run",),
    "lanes": ("expand", "run", "blocked", "direct"),
    "strided_rows": ("run",),
    "strided_lanes": ("expand", "run"),
}
"""Forms that fq_tvm.c takes for granted; it asks for the others."""

_DTYPES = ("dtype", "scale_dtype", "zero_point_dtype", "out_dtype")

Spec = FakeQuantSpec | StraightThroughSpec
"""What the functions of the library have arguments for."""

CPU_FEATURES = (
    "sse4.2", "popcnt", "avx", "avx2", "fma", "bmi", "bmi2",
    "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
)  # fmt: skip
"""Of LLVM's names of features, those that ``__builtin_cpu_supports`` of GCC takes from version 6 on.  What else code
uses comes with one of them on every CPU that there is."""


@dataclass(frozen=True)
class Code:
    """An object of the library.

    Parameters
    ----------
    spec : FakeQuantSpec or StraightThroughSpec
        The kernel.
    points : EntryPoints
        The contract that it is called by.
    schedules : mapping of float to Schedule
        By the most bytes that move; they differ in nothing that is compiled.
    prefix : str
        Begins the names of its functions.  Differs where anything differs that decides about the code, so that the
        source of one library cannot be linked with the objects of another.
    file : str
        Name of the object, without its suffix.
    """

    spec: Spec
    points: EntryPoints
    schedules: Mapping[float, Schedule]
    prefix: str
    file: str


def asked_for(spec: Spec) -> Spec:
    """Return a specification that the functions of the library have arguments for.

    Raises
    ------
    FqError
        If they have not.
    """
    if type(spec) not in (FakeQuantSpec, StraightThroughSpec):
        name = getattr(spec, "name", repr(spec))
        raise FqError(f"the C library has no function for {name}; expected fake quantization or its gradient")
    return spec


def header(codes: Sequence[Code], target: Target) -> str:
    """Return the text of ``fq_tvm.h``."""
    numbers = {"MAX_RANK": str(MAX_RANK), "ROWS": str(rows_min_inner(target))}
    return _fill("fq_tvm.h", KERNELS=_list(codes), ABOUT=_about(target), VERSION=__version__, **numbers)


def source(codes: Sequence[Code], target: Target) -> str:
    """Return the text of ``fq_tvm.c``.

    Raises
    ------
    FqError
        If there are no kernels.
    BuildError
        If the contract of a kernel has what fq_tvm.c does not know, or lacks what it takes for granted.
    """
    if not codes:
        raise FqError("a C library needs a kernel or more; none was asked for")
    text = _read("fq_tvm.c")
    fields = _fields(text)
    calls: dict[str, str] = {}
    for code in codes:
        _conform(code, fields)
        for form in code.points.forms:
            calls.setdefault(_call(form, fields), f"call_{len(calls)}")
    declared = [f"PRIVATE int {f}(void *, const Any *, int32_t, Any *);" for c in codes for f in _functions(c, target)]
    ordered = sorted(((most, code) for code in codes for most in code.schedules), key=lambda row: row[0])
    rows = [
        _row(code, most, calls, fields, target) for most, code in ordered
    ]  # the first one that is large enough counts
    generated = [
        *(f"enum {{ {name} = {value} }};" for name, value in _constants(target).items()),
        "",
        *(body.replace("NAME", name) for body, name in calls.items()),
        *declared,
        "",
        "static const Kernel kernels[] = {",
        *rows,
        "};",
        "",
    ]
    return _fill("fq_tvm.c", ABOUT=_about(target), GENERATED="\n".join(generated), CPU=_cpu(target))


def _read(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text()


def _fill(name: str, **values: str) -> str:
    text = _read(name)
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _about(target: Target) -> str:
    return f"Written by `fq-tvm build --c-api` of fq_tvm {__version__} for {target.cpu}."


def _list(codes: Sequence[Code]) -> str:
    """List the kernels for a reader: classes by what differs otherwise."""
    kinds: dict[str, list[str]] = {}
    for spec in dict.fromkeys(code.spec for code in codes):
        kinds.setdefault(_kind(spec), []).append(spec.iteration)
    return "\n".join(f" *     {kind}: {', '.join(classes)}" for kind, classes in kinds.items())


def _kind(spec: Spec) -> str:
    """Describe all of a kernel but its class."""
    if isinstance(spec, StraightThroughSpec):
        return f"gradient, {spec.dtype}, mask -> {spec.dtype}"
    dtypes = f"{spec.dtype}, {spec.scale_dtype}, {spec.zero_point_dtype} -> {spec.out_dtype}"
    wide = "a bound beyond 2^23" if spec.wide else "bounds up to 2^23"
    formula = [name for name in _formula(spec) if name != "ZERO_POINT_BEFORE" or not spec.float_zero_point]
    after = spec.float_zero_point and "ZERO_POINT_BEFORE" not in _formula(spec)
    names = [f"FQ_TVM_{name}" for name in (*formula, *(["ZERO_POINT_AFTER"] if after else []))]
    return ", ".join([dtypes, wide, *names, *([] if spec.mask else ["without a mask"])])


def _formula(spec: FakeQuantSpec) -> list[str]:
    """Name what differs from the contract's formula, as the header does; ZERO_POINT_BEFORE for floats, too."""
    there = {
        "DIVISION": spec.form == "division",
        "ZERO_POINT_BEFORE": spec.zero_point_placement == "before",
        "KEEP_ZERO_SIGN": spec.keep_zero_sign,
        "NAN_QUANT_MAX": spec.nan == "quant_max",
    }
    return [name for name, differs in there.items() if differs]


def _selected(spec: Spec) -> dict[str, object]:
    """Return the fields of the table by which fq_tvm.c looks for a kernel, but for its size."""
    if isinstance(spec, StraightThroughSpec):
        dtype = f"FQ_TVM_{spec.dtype.upper()}"
        return {"gradient": 1, "iteration": spec.iteration.upper(), "dtype": dtype, "out_dtype": dtype, "masked": 1}
    return {
        "iteration": spec.iteration.upper(),
        **{name: f"FQ_TVM_{getattr(spec, name).upper()}" for name in _DTYPES},
        "wide": int(spec.wide),
        "formula": " | ".join(f"FQ_TVM_{name}" for name in _formula(spec)) or 0,
        "masked": int(spec.mask),
    }


def _constants(target: Target) -> dict[str, int]:
    """Return the boundaries that decide about a plan, see :mod:`fq_tvm.launch.plan`."""
    names = ("DIRECT_OUTER", "CACHED_RUN_ELEMENTS", "LONGEST_RUN_ELEMENTS", "LINE_ELEMENTS", "EXPAND_INNER_FROM")
    constants = {name: getattr(plan, name) for name in names}
    return {**constants, "ROWS_MIN_INNER": rows_min_inner(target), "NARROW_LIMIT": NARROW_LIMIT}


def _fields(text: str) -> dict[str, str]:
    """Return the kind of each number or tensor that fq_tvm.c has a value for, by its name in a contract."""
    found = re.search(r"typedef struct \{([^}]*)\} Values;", text)
    assert found is not None
    kinds = {"const void": "tensors", "double": "scalars", "int64_t": "integers"}
    fields = {}
    for kind, names in re.findall(r"^  (const void|double|int64_t) ([^;]*);", found[1], re.MULTILINE):
        for name in re.findall(r"\w+(?:\[\w+\])?", names):
            name, several, _ = name.partition("[")
            for each in [f"{name}{i}" for i in range(MAX_RANK)] if several else [name]:
                fields[each] = kinds[kind]
    return fields


def _conform(code: Code, fields: Mapping[str, str]) -> None:
    """Compare a contract with what fq_tvm.c knows; raise a BuildError if the two differ."""
    spec, points, what = code.spec, code.points, f"{code.spec.name}: fq_tvm.c"
    if unknown := {form.name for form in points.forms} - FORMS.keys():
        raise BuildError(f"{what} does not call the form {', '.join(sorted(unknown))}")
    if lacking := [name for name in NEEDED[spec.iteration] if name not in points]:
        raise BuildError(f"{what} calls the form {', '.join(lacking)}, which the contract does not have")
    for form in points.forms:
        for kind in ("tensors", "scalars", "integers"):
            if strange := [name for name in getattr(form, kind) if fields.get(name) != kind]:
                raise BuildError(f"{what} has no value for {', '.join(strange)} of {form.name} among its {kind}")
        expands = form.name == "expand"
        needed = EXPANSIONS[: 1 if spec.strided else 2] if expands else VARIANTS[:2]
        if not set(needed) <= set(form.variants) <= set(EXPANSIONS if expands else VARIANTS):
            raise BuildError(f"{what} calls {', '.join(needed)} of {form.name}; it has {', '.join(form.variants)}")


def _call(form: Form, fields: Mapping[str, str]) -> str:
    """Return a C function that calls a function of a form with its arguments in order."""
    macros = {"tensors": "ADDRESS", "scalars": "REAL", "integers": "INTEGER"}

    def place(name: str) -> str:
        return name if name in ("", *_plain(fields)) else re.sub(r"(\d+)$", r"[\1]", name)

    arguments = [f"{macros[fields[name]]}({place(name)})" for name in (*form.tensors, *form.numbers)]
    lines = [", ".join(arguments[i : i + 4]) for i in range(0, len(arguments), 4)]
    body = ",\n    ".join(lines)
    return (
        f"/* {', '.join((*form.tensors, *form.numbers))} */\n"
        "static int NAME(Function function, const Values *values) {\n"
        f"  const Any arguments[] = {{\n    {body}}};\n"
        "  Any result = {0};\n"
        f"  return function(0, arguments, {len(arguments)}, &result);\n"
        "}\n"
    )


def _plain(fields: Mapping[str, str]) -> Iterable[str]:
    return (name for name in fields if not name[-1].isdigit())


def _functions(code: Code, target: Target) -> list[str]:
    return [f"{code.prefix}_{name}" for form in code.points.forms for name in form.functions(target).values()]


def _row(code: Code, most: float, calls: Mapping[str, str], fields: Mapping[str, str], target: Target) -> str:
    """Return the entry of a kernel in the table, for tensors of at most so many bytes."""
    spec, schedule, workspace = code.spec, code.schedules[most], code.points.workspace
    values = {
        "name": f'"{spec.name}"',
        **_selected(spec),
        "most_bytes": "INT64_MAX" if math.isinf(most) else int(most),
        "element_bytes": spec.element_bytes,
        "nontemporal": int(spec.nontemporal and target.nontemporal_stores),
        "vectors": 0 if workspace is None else len(workspace.vectors),
        "flag": int(workspace is not None and bool(workspace.flag)),
        "nontemporal_row": plan.NONTEMPORAL_ROW_ELEMENTS[spec.out_dtype],
        "tile": schedule.tile,
        "rows": schedule.rows,
        "run_length": schedule.run,
        "parallel_from": schedule.parallel_from,
        "stream_from": schedule.stream_from,
    }
    for form in code.points.forms:
        there, order = form.functions(target), EXPANSIONS if form.name == "expand" else VARIANTS
        functions = [f"{code.prefix}_{there[variant]}" if variant in there else "0" for variant in order]
        values[FORMS[form.name]] = f"{{{calls[_call(form, fields)]}, {{{', '.join(functions)}}}}}"
    return "  {" + ",\n   ".join(f".{name} = {value}" for name, value in values.items()) + "},"


def _cpu(target: Target) -> str:
    """Return the statements that say whether the CPU at hand can run the code."""
    checks = [f'__builtin_cpu_supports("{name}")' for name in CPU_FEATURES if name in target.features]
    body = "  return 1;\n"
    if checks:
        body = "  __builtin_cpu_init();\n  return " + " &&\n         ".join(checks) + ";\n"
    return body
