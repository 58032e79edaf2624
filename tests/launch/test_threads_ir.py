"""The LLVM IR that is shipped is that of the C that people read."""

from __future__ import annotations

import importlib.util

import ir
import pytest

needs_compiler = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")


@needs_compiler
@pytest.mark.parametrize("architecture", ir.ARCHITECTURES)
@pytest.mark.parametrize("source", ir.SOURCES)
def test_the_ir_agrees_with_the_c(source, architecture, request):
    text, path = ir.generate(source, architecture), ir.path_of(source, architecture)
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert path.read_text() == text, f"{path.name} is not that of {source}.c; run pytest with --update-golden"


@pytest.mark.parametrize("architecture", ir.ARCHITECTURES)
@pytest.mark.parametrize("source", ir.SOURCES)
def test_it_becomes_an_object_of_its_architecture(source, architecture):
    from fq_tvm.codegen.llvm import emit

    machine = {"x86_64": 62, "aarch64": 183}[architecture]  # e_machine of ELF
    code = emit(ir.path_of(source, architecture).read_text())[0]
    assert code[:4] == b"\x7fELF" and int.from_bytes(code[18:20], "little") == machine


@pytest.mark.parametrize("architecture", ir.ARCHITECTURES)
def test_it_names_no_place_and_asks_for_no_library_function_that_is_not_there(architecture):
    text = ir.path_of("threads", architecture).read_text()
    assert "/" not in text.replace("`pytest tests/launch/", "")
    for word in ("ubsan", "__stack_chk", "__aarch64_", "thread_local", "!dbg", "x86_fp80"):
        assert word not in text, word
