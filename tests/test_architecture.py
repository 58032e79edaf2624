"""The house rules that a machine can hold: which module may know which."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fq_tvm"

PLACES = (
    "errors", "interruption", "environment", "spec", "layout", "target", "schedule", "reference",
    "entry_points", "operators",
    "codegen", "store", "launch",
    "ascend", "functional", "aclnn", "relax", "tensor_ir", "c_api", "bench",
    "torch", "weights", "tuning",
    "cli", "__main__",
)  # fmt: skip
"""The modules and folders of the package.  Imports point to the left."""

APART = {("store", "codegen")}
"""Places that do not know each other, whatever their order: what is kept on disk needs no compiler."""

COMPILER = {"codegen", "relax", "ascend", "tuning"}
"""Places that may import TVM's compiler: ascend and tuning within functions."""

AT_IMPORT = {"codegen": "tvm", "relax": "tvm", "torch": "torch"}
"""Places whose import imports something heavy, and what."""

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


def test_every_place_has_a_rank_of_its_own():
    assert {part(path) for path in MODULES} == set(PLACES)
    assert len(set(PLACES)) == len(PLACES)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = part(path)
    for name, _ in imports(path):
        if name.startswith("fq_tvm.") and (other := name.split(".")[1]) != own and not other.startswith("__"):
            assert PLACES.index(other) < PLACES.index(own), f"{own} imports {other}"
            assert (own, other) not in APART, f"{own} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_compilers_places_import_the_compiler(path):
    own = part(path)
    for name, at_import in imports(path):
        heavy = name.split(".")[0]
        if heavy in ("tvm", "torch") and at_import:
            assert AT_IMPORT.get(own) == heavy, f"{path.name} imports {name} at import"
        if heavy == "tvm":
            assert own in COMPILER, f"{path.name} imports {name}"


def test_launch_reaches_the_compiler_inside_one_function():
    """A warm process must not, so nobody imports it, but for who was asked to build something."""
    for path in MODULES:
        if part(path) == "launch":
            assert not [name for name, _ in imports(path) if name.startswith("fq_tvm.codegen")], path.name
            assert path.read_text().count("..codegen") == (path.name == "runtime.py"), path.name


ENGINE = {"codegen": {"expression", "functions"}, "launch": {"arguments"}, "store": {"records"}}
"""Folders that are given an operator, and the modules in them that know fake quantization."""


def test_the_engine_knows_no_operator():
    for path in MODULES:
        if path.stem not in ENGINE.get(part(path), {path.stem}):
            assert not re.search(r"FakeQuant|FAKE_QUANT", _code(path)) or path.name == "library.py", path


def _code(path: Path) -> str:
    """The text of a module without its docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    return ast.unparse(tree)


def test_the_environment_is_read_in_one_place():
    for path in MODULES:
        if part(path) != "environment":
            assert not re.search(r"(environ|getenv).{0,20}FQ_TVM_", path.read_text()), path.name


def test_no_vague_classes():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assert not node.name.endswith(("Manager", "Helper", "Engine", "Utils")), node.name


def test_no_function_has_more_than_eight_parameters():
    """Those that gather the rest, and self, count like any other; lambdas count as well."""
    for path in (*MODULES, PACKAGE / "__init__.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                parameters = [child.arg for child in ast.iter_child_nodes(node.args) if isinstance(child, ast.arg)]
                assert len(parameters) <= 8, f"{path.name}:{node.lineno} has {', '.join(parameters)}"


def test_libraries_print_nothing():
    for path in MODULES:
        if part(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path.name}:{node.lineno}"
