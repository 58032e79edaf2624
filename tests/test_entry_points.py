"""The contract of entry points: what differs from it is refused when a kernel is built, not found out by wrong bits."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import fq_tvm
from fq_tvm import FakeQuantSpec, catalogue, get_kernel
from fq_tvm.codegen import functions
from fq_tvm.codegen.build import build, lower
from fq_tvm.codegen.calling_convention import conform
from fq_tvm.entry_points import EntryPoints, fake_quant_entry_points
from fq_tvm.errors import BuildError
from fq_tvm.launch import registry
from fq_tvm.launch.registry import current_target, request_of
from fq_tvm.operators import FAKE_QUANT
from fq_tvm.schedule import default_schedule
from fq_tvm.spec import ITERATIONS
from fq_tvm.store.cache import digest

SPECS = [FakeQuantSpec(iteration, dtype) for iteration in ITERATIONS for dtype in ("float32", "float16")]


def changed(points: EntryPoints, index: int, **fields) -> EntryPoints:
    forms = list(points.forms)
    forms[index] = dataclasses.replace(forms[index], **fields)
    return dataclasses.replace(points, forms=tuple(forms))


def perturbations(spec: FakeQuantSpec):
    """Every form left out, and of each form two neighboring arguments of a kind exchanged, or one left out."""
    points = fake_quant_entry_points(spec)
    for index, form in enumerate(points.forms):
        yield (
            f"{form.name} is gone",
            dataclasses.replace(points, forms=points.forms[:index] + points.forms[index + 1 :]),
        )
        yield f"{form.name} has one variant less", changed(points, index, variants=form.variants[1:])
        for kind in ("tensors", "scalars", "integers"):
            names = getattr(form, kind)
            for i in range(min(len(names) - 1, 6)):
                swapped = (*names[:i], names[i + 1], names[i], *names[i + 2 :])
                yield f"{form.name}: {names[i]} and {names[i + 1]}", changed(points, index, **{kind: swapped})
            if names:
                yield f"{form.name} without {names[-1]}", changed(points, index, **{kind: names[:-1]})


@pytest.mark.parametrize("spec", SPECS[::2], ids=lambda s: s.name)
def test_code_that_differs_from_the_contract_is_refused(spec):
    """Code was made by one contract, and would be launched by another."""
    target = current_target()
    module = lower(spec, default_schedule(spec), target)
    made = {variable.name_hint: func for variable, func in module.functions.items()}
    conform(made, fake_quant_entry_points(spec), target)
    taken, messages = [], []
    for what, points in perturbations(spec):
        try:
            conform(made, points, target)
            taken.append(what)
        except BuildError as error:
            messages.append(str(error))
    assert not taken
    assert all(re.search(r"the contract says|differ in the functions", message) for message in messages)
    assert len(list(perturbations(spec))) > 8


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("run", {"integers": ("outer", "channels", "scale_stride", "zero_point_stride")}, "inner"),
        ("run", {"name": "walk"}, "nothing states the form walk"),
    ],
)
def test_a_contract_that_nobody_states_is_refused(monkeypatch, name, fields, message):
    spec = FakeQuantSpec("rows")
    points = fake_quant_entry_points(spec)
    index = next(i for i, form in enumerate(points.forms) if form.name == name)
    broken = changed(points, index, **fields)
    operator = dataclasses.replace(FAKE_QUANT, entry_points=lambda _: broken)
    monkeypatch.setattr("fq_tvm.operators._operators", {"fake_quant": operator})
    if "integers" in fields:
        monkeypatch.setattr(functions, "fake_quant_entry_points", lambda _: broken)
    with pytest.raises(BuildError, match=message):
        build(spec, default_schedule(spec), current_target())


def test_a_form_that_nobody_calls_is_refused(monkeypatch):
    spec = FakeQuantSpec("lanes")
    points = fake_quant_entry_points(spec)
    fewer = dataclasses.replace(points, forms=points.forms[:-1])
    operator = dataclasses.replace(FAKE_QUANT, entry_points=lambda _: fewer)
    monkeypatch.setattr("fq_tvm.operators._operators", {"fake_quant": operator})
    with pytest.raises(BuildError, match="the contract has no form direct"):
        build(spec, default_schedule(spec), current_target())


def test_another_contract_is_another_kernel(monkeypatch):
    """An entry of the cache is never launched by a contract that it was not built by."""
    spec, target = FakeQuantSpec("rows"), current_target()
    requests = [request_of(spec, default_schedule(spec), target)]
    for _, points in perturbations(spec):
        operator = dataclasses.replace(FAKE_QUANT, entry_points=lambda _, points=points: points)
        monkeypatch.setattr("fq_tvm.operators._operators", {"fake_quant": operator})
        requests.append(request_of(spec, default_schedule(spec), target))
    assert len({digest(request) for request in requests}) == len(requests)
    assert registry.versions() == requests[0]["versions"]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_objects_have_the_functions_of_the_contract(spec):
    kernel = get_kernel(spec)
    for form in fake_quant_entry_points(spec).forms:
        for name in form.functions(kernel.target).values():
            assert kernel.function(name) is not None
            assert f"@__tvm_ffi_{name}(" in kernel.source("ll")


def test_names_are_distinct_and_arguments_named_once():
    for spec in catalogue(extensions=True):
        points = fake_quant_entry_points(spec)
        names = [name for form in points.forms for name in map(form.function, form.variants)]
        assert len(set(names)) == len(names)
        for form in points.forms:
            arguments = [*form.tensors, *form.numbers]
            assert len(set(arguments)) == len(arguments)
            assert set(form.results) <= set(form.tensors)


def test_nobody_else_spells_a_name():
    """Names of functions stand in the contract alone: tests of it apart, no module writes one out."""
    names = {
        name
        for spec in map(FakeQuantSpec, ITERATIONS)
        for form in fake_quant_entry_points(spec).forms
        for name in map(form.function, form.variants)
    }
    for path in Path(fq_tvm.__file__).parent.rglob("*.py"):
        if path.name != "entry_points.py":
            text = path.read_text()
            assert not [name for name in names if f'"{name}"' in text], path
