"""Specification + schedule + target -> object code, with its expression, TIR, LLVM IR and assembly.

Knows the order of the steps.  Knows nothing of caches, and no operator.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm import tirx

from ..entry_points import EntryPoints, Form
from ..errors import BuildError
from ..operators import operator_of
from ..schedule import Schedule
from ..target import Target
from .calling_convention import by_address, conform, either, with_constants
from .llvm import emit, translate
from .nontemporal import past_caches
from .statement import Statement
from .transforms import schedule_expansion, schedule_form
from .vector_loops import in_pieces


@dataclass(frozen=True)
class Code:
    """What a build yields, as text and bytes.

    Parameters
    ----------
    object : bytes
        Relocatable object code with the functions of the kernel's entry points.
    te, tir, ll, asm : str
        The unscheduled expression, the scheduled functions, LLVM IR and assembly.
    """

    object: bytes
    te: str
    tir: str
    ll: str
    asm: str

    @property
    def tir_hash(self) -> str:
        """SHA-256 of the scheduled functions."""
        return hashlib.sha256(self.tir.encode()).hexdigest()


def state(spec: Any, schedule: Schedule) -> dict[str, list[Statement]]:
    """State the forms of a kernel, see :class:`~fq_tvm.operators.Operator`."""
    module, _, function = operator_of(spec).functions.partition(":")
    # Not imported where it is there: the thread that imports it just now may be the one that waits for this.
    states = getattr(sys.modules.get(module), function, None) or getattr(importlib.import_module(module), function)
    stated: dict[str, list[Statement]] = states(spec, schedule)
    return stated


Constants = Mapping[str, Mapping[str, int]]
"""By form and name, the numbers of a kernel for one shape; none for one that serves every shape."""

NO_CONSTANTS: Constants = {}


def lower(spec: Any, schedule: Schedule, target: Target, constants: Constants = NO_CONSTANTS) -> tvm.IRModule:
    """Schedule a kernel and give it its calling convention.

    Parameters
    ----------
    spec : FakeQuantSpec or another operator's
        What to compute.
    schedule : Schedule
        How.
    target : Target
        For which CPU.
    constants : mapping
        For which shape, if for one.

    Returns
    -------
    tvm.IRModule
        A function for each variant of each form of the operator's entry points; for one shape, of each that its launch
        calls, which takes the same arguments and does not read those that are constants.

    Raises
    ------
    BuildError
        If what was stated is not what the contract of entry points says.
    """
    points = operator_of(spec).entry_points(spec)
    statements = state(spec, schedule)
    if constants:
        points = replace(points, forms=tuple(points[name] for name in constants))
        statements = {name: stated for name, stated in statements.items() if name in constants}
    functions: dict[str, tirx.PrimFunc] = {}
    for form in points.forms:
        if form.name not in statements:
            raise BuildError(f"{spec.name}: nothing states the form {form.name} of the contract")
        made = _functions(spec, form, statements[form.name], points, schedule, target)
        numbers = constants.get(form.name, {})
        functions |= {name: with_constants(func, numbers) for name, func in made.items()}
    if left := statements.keys() - {form.name for form in points.forms}:
        raise BuildError(f"{spec.name}: the contract has no form {', '.join(sorted(left))}")
    conform(functions, points, target)
    return tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})


def _functions(
    spec: Any, form: Form, stated: Sequence[Statement], points: EntryPoints, schedule: Schedule, target: Target
) -> Mapping[str, tirx.PrimFunc]:
    """Make the variants of a form."""
    made = {}
    for variant, name in form.functions(target).items():
        if form.name == "expand":
            (expansion,) = stated
            made[name] = by_address(schedule_expansion(expansion, variant), expansion)
            continue
        chosen = replace(schedule, rows=1) if form.name == "long" else schedule
        scheduled = [by_address(schedule_form(s, spec.iteration, chosen, variant != "serial"), s) for s in stated]
        if variant == "nontemporal":
            pieces, architecture = not spec.lanes, target.architecture
            scheduled = [past_caches(func, form.results, pieces, architecture) for func in scheduled]
        elif stated[0].overlaps:
            scheduled = [in_pieces(func, form.results) for func in scheduled]
        made[name] = either(points.workspace, *scheduled)
    return made


def build(spec: Any, schedule: Schedule, target: Target, constants: Constants = NO_CONSTANTS) -> Code:
    """Compile a kernel.

    Parameters
    ----------
    spec : FakeQuantSpec or another operator's
        What to compute.
    schedule : Schedule
        How.
    target : Target
        For which CPU.
    constants : mapping
        For which shape, if for one.

    Returns
    -------
    Code

    Raises
    ------
    BuildError
        If TVM or LLVM fails; the message holds theirs.
    """
    try:
        module = lower(spec, schedule, target, constants)
        ll = translate(module, schedule, target)
        code, asm = emit(ll)
        texts = (s.func.script() for stated in state(spec, schedule).values() for s in stated)
        return Code(object=code, te="\n".join(texts), tir=module.script(), ll=ll, asm=asm)
    except Exception as error:
        raise BuildError(f"cannot build {spec.name} for {target.cpu}: {error}") from error
