"""The library on an aarch64 machine under qemu-user: kernels built here for a Kunpeng 920, proof.py and suites there.

    python tests/aarch64/qemu.py MACHINE [argument of pytest ...]

MACHINE is a folder that machine.sh made.  What is run there builds nothing: a kernel that is not among those built here
is a failure.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fq_tvm
from fq_tvm.spec import (
    ARITHMETIC,
    ITERATIONS,
    folded_norm_catalogue,
    folded_norm_gradient_catalogue,
    folded_weights_catalogue,
    folded_weights_gradient_catalogue,
    quotient_gradient_catalogue,
    straight_through_catalogue,
)

ROOT = Path(__file__).parents[2]
TARGET = "kunpeng-920"
FOREIGN = "x86-64-v3"
"""Whose code proof.py is to find refused."""

BEYOND = [
    ("bfloat16", "float32", "bfloat16", "int32"),
    ("bfloat16", "bfloat16", "float32", "float32"),
    ("float32", "float32", "float32", "float32"),
    ("float32", "float32", "float32", "float16"),
    ("float16", "float32", "float16", "float16"),
]
"""Dtypes beyond aclnn's contract that the suites use."""

WITHOUT_TORCH = {"WITHOUT_TORCH": "1"}
"""Of the machine, see there."""

SUITES = {
    ("tests/test_functional.py", "tests/codegen/test_vector_loops.py"): {},
    ("tests/aclnn", "tests/test_properties.py"): {},
    ("tests/test_spec.py", "tests/launch/test_kernel.py", "tests/launch/test_threads.py"): WITHOUT_TORCH,
}
"""Side by side, with what is added to the environment."""

COMPILING = (
    "expression_on_shapes what_only_a_launch every_argument same_build_twice build_library unknown_cpu another_cpu "
    "kernels_beyond lesser_cpu quick_enough memory_then_cache corrupt_entries hidden_features only_short_rows "
    "schedules_never every_bfloat16 require_cache"
)
"""Words of the tests that need the compiler, which takes a quarter of a minute over there for each kernel, or kernels
that nobody else does, and of one that wants none to be there."""

EMULATED = (
    "forked_child child_of_a_process team_is_used no_thread_is_left keep_to_the_cpus stalled_helpers openmp_is "
    "first_launch_load many_streams process_ends_while signals_go layers_are_chosen"
)
"""Words of those that ask more of a system than qemu-user is: forks of a process with threads, which may hold its own
locks, the clocks and the affinity of other threads; and of tests of several processes, each of which starts slowly."""


def build(folder: Path) -> None:
    """Cross-build what the suites need."""
    specs = [*fq_tvm.catalogue(), *straight_through_catalogue(), *quotient_gradient_catalogue()]
    specs += [*folded_weights_catalogue(), *folded_weights_gradient_catalogue(), *folded_norm_catalogue()]
    specs += folded_norm_gradient_catalogue()
    specs += [fq_tvm.FakeQuantSpec(i, *d, a) for i, d, a in itertools.product(ITERATIONS, BEYOND, ARITHMETIC)]
    specs += [fq_tvm.FakeQuantSpec(i, mask=False) for i in ITERATIONS]  # others are served with the mask discarded
    paths = fq_tvm.build_library(folder, specs, fq_tvm.find_target(TARGET))
    fq_tvm.build_library(folder, [fq_tvm.FakeQuantSpec("rows")], fq_tvm.find_target(FOREIGN))
    print(f"{len(paths)} kernels for {TARGET}", flush=True)


def environment(folder: Path, cache: str) -> dict[str, str]:
    """What processes over there get: the kernels, and an empty cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FQ_TVM_", "OPENBLAS_"))}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "FQ_TVM_ARTIFACTS_DIR": str(folder),
        "FQ_TVM_REQUIRE_CACHE": "1",
        "FQ_TVM_CACHE_DIR": cache,
        "HYPOTHESIS_EXAMPLES": "60",
    }


def main() -> int:
    machine, arguments = Path(sys.argv[1]).absolute(), sys.argv[2:]
    python, kernels = str(machine / "python"), machine / "artifacts"
    start = time.monotonic()

    def step(what: str) -> None:
        print(f"== {time.monotonic() - start:4.0f} s: {what}", flush=True)

    step("cross-building")
    build(kernels)
    with tempfile.TemporaryDirectory() as temporary:
        environ = environment(kernels, temporary)
        step("proof")
        program = str(ROOT / "tests" / "aarch64" / "proof.py")
        proof = subprocess.Popen([python, program], env=environ | WITHOUT_TORCH)
        step("suites")
        without = f"not ({' or '.join([*COMPILING.split(), *EMULATED.split()])})"
        command = [python, "-m", "pytest", "-q", "--artifacts", str(kernels), "-p", "no:cacheprovider", "-k", without]
        command += arguments
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
        running = [subprocess.Popen([*command, *files], env=environ | more, **pipes) for files, more in SUITES.items()]
        said = [process.communicate()[0] for process in running]
        status = proof.wait()
    for text in said:
        print(text)
    passed = sum(int(n) for text in said for n in re.findall(r"(\d+) passed", text.rpartition("\n=")[2] or text))
    failed = status != 0 or any(process.returncode for process in running)
    step("done")
    print(f"aarch64: {passed} passed, {int(failed)} failed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
