"""The house rules that a machine can hold: which module may know which."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fq_tvm.kernel import GENERATORS

PACKAGE = Path(__file__).parent.parent / "fq_tvm"

LAYERS = [
    ["errors"],
    ["spec", "environment"],
    ["layout", "reference", "expression", "runtime", "memory"],
    ["arguments"],
    ["schedule"],
    ["target", "innermost"],
    ["streaming"],
    ["records", "build", "cache"],
    ["kernel"],
    ["functional", "aclnn", "tune", "trial", "bench", "ascend", "relax", "torch", "weights"],
    ["cli"],
    ["__main__"],
]
"""Imports point up this list, never down."""

COMPILER = {"expression", "build", "innermost", "streaming", "schedule", "target", "tune", "trial", "relax", "ascend"}
"""Modules that may import TVM's compiler."""

MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE)


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Absolute names of what a file imports, and whether that happens when it is imported itself."""
    found = []
    package = ["fq_tvm", *path.relative_to(PACKAGE).parts[:-1]]

    def visit(node: ast.AST, eager: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, eager) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                stem = [*base, *(child.module.split(".") if child.module else [])]
                names = [alias.name for alias in child.names]
                found.extend((".".join([*stem, n] if stem == ["fq_tvm"] else stem), eager) for n in names)
            visit(child, eager and not isinstance(child, (ast.FunctionDef, ast.Lambda)))

    visit(ast.parse(path.read_text()), True)
    return found


def rank(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = part(path)
    for name, _ in imports(path):
        if name.startswith("fq_tvm.") and (other := name.split(".")[1]) != own:
            if other.startswith("__"):
                continue
            assert rank(other) <= rank(own), f"{own} imports {other}"
            assert rank(other) < rank(own) or len(LAYERS[rank(own)]) > 1


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_compiler_modules_import_the_compiler(path):
    if part(path) in COMPILER - {"schedule", "target", "ascend"}:
        return
    heavy = {"tvm", "torch"} - {part(path)}  # fq_tvm.torch is for those who have torch
    eager = [name for name, at_import in imports(path) if at_import and name.split(".")[0] in heavy]
    assert not eager, f"{path.name} imports {eager} at import"
    if part(path) not in COMPILER:
        assert not [name for name, _ in imports(path) if name.split(".")[0] == "tvm"], path.name


def test_the_environment_is_read_in_one_place():
    for path in MODULES:
        if part(path) != "environment":
            assert not re.search(r"(environ|getenv).{0,20}FQ_TVM_", path.read_text()), path.name


def test_no_vague_classes():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assert not node.name.endswith(("Manager", "Helper", "Engine", "Utils")), node.name


def test_libraries_print_nothing():
    for path in MODULES:
        if part(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path.name}:{node.lineno}"


def test_what_makes_code_is_part_of_a_kernels_identity():
    """Who changes one of these gets other kernels, not those of the cache."""
    made_by, seen = {"build"}, set()
    while rest := made_by - seen:
        seen |= rest
        names = {name for module in rest for name, _ in imports(PACKAGE / f"{module}.py")}
        made_by |= {name.split(".")[1] for name in names if name.startswith("fq_tvm.")} & COMPILER
    assert made_by < {name.removesuffix(".py") for name in GENERATORS}
