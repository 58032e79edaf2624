"""torch's own tests of fake quantization and observers, without this library and with it.

    python tests/torch/upstream.py --checkout DIR [FILE ...]

DIR is a checkout of torch's source at the tag of the torch that is installed, whose wheel has no tests.  Each
file runs three times in a process of its own: as it is, with ``fq_tvm.torch.enable()``, and so that kernels of this
library serve even the smallest tensors, which most of these tests have.  What differs in its outcome is printed and is
the failure of this script, and so is a run in which no kernel served anything.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

FILES = (
    "test/quantization/core/test_workflow_ops.py",
    "test/quantization/core/test_workflow_module.py",
    "test/quantization/eager/test_quantize_eager_qat.py",
)
WAYS = ("stock", "enabled", "every size")
SHOWN = 200
"""Most characters of what a test failed with."""


class Recorder:
    """What became of each test, with the line that it failed with.  A plugin of pytest."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or not report.passed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.outcomes[report.nodeid] = [report.outcome, crash.message[:SHOWN] if crash else ""]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.outcomes[report.nodeid] = [report.outcome, str(report.longrepr)[-SHOWN:]]


def enable(way: str) -> Counter[str]:
    """Put the kernels in torch's place, unless the way is stock; return what counts the tensors that they serve.

    Hypothesis draws examples by what is imported, too, so that is the same in all ways.
    """
    import fq_tvm.torch
    from fq_tvm.torch import find, gradient, observer, override, quantizing

    served: Counter[str] = Counter()

    def counted(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = inner(*arguments, **options)
            served[name] += result is not None or name == "gradient"  # which gives nothing back
            return result

        return call

    find.fake_quantize = counted("forward", find.fake_quantize)
    gradient.run = counted("gradient", gradient.run)
    observer.observe = counted("range", observer.observe)
    quantizing.quantize = counted("module", quantizing.quantize)
    if way != "stock":
        fq_tvm.torch.enable()
    if way == "every size":
        override.PER_TENSOR_MIN_ELEMENTS = gradient.KERNEL_MIN_ELEMENTS = 0
        override.OBSERVED_MIN_ELEMENTS = 0
    return served


def run(way: str, file: Path, result: Path) -> None:
    """Run a file in this process and write what became of its tests."""
    served = enable(way)
    recorder = Recorder()
    os.chdir(next(parent for parent in file.parents if parent.name == "test"))
    sys.path.insert(0, os.getcwd())
    options = ["-q", "--no-header", "--tb=no", "-pno:cacheprovider", f"-c{os.devnull}", "--rootdir=."]
    pytest.main([*options, "--hypothesis-seed=0", str(file)], plugins=[recorder])
    result.write_text(json.dumps({"outcomes": recorder.outcomes, "served": served}))


def differences(outcomes: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Return a line for each test that ended otherwise than with torch's own kernels."""
    lines = []
    for name in sorted(set().union(*outcomes.values())):
        wanted, *got = [outcomes[way].get(name, ("not run", "")) for way in WAYS]
        for way, (outcome, message) in zip(WAYS[1:], got, strict=True):
            if outcome != wanted[0]:
                lines.append(f"{name}: {wanted[0]} with stock, {outcome} with {way}: {message or wanted[1]}")
    return lines


def compare(file: Path) -> bool:
    """Run a file each way and print how the outcomes compare; return whether they are the same."""
    results = {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            command = [sys.executable, __file__, "--way", way, "--result", str(result), str(file)]
            child = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if child.returncode or not result.exists():
                print(child.stdout)
                print(f"{file.name}, {way}: ended with status {child.returncode} before all tests were run")
                return False
            results[way] = json.loads(result.read_text())
        counts = Counter(outcome for outcome, _ in results[way]["outcomes"].values())
        served = ", ".join(f"{n} {name}" for name, n in results[way]["served"].items()) or "none"
        print(f"{file.name}, {way}: {dict(counts)}; served by kernels: {served}", flush=True)
    lines = differences({way: results[way]["outcomes"] for way in WAYS})
    lines += [f"{file.name}: no test passed"] * ("passed" not in {o for o, _ in results["stock"]["outcomes"].values()})
    lines += [f"{file.name}: nothing was served by a kernel"] * (not results["every size"]["served"])
    print("\n".join(lines) or f"{file.name}: all tests end alike")
    return not lines


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the files; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkout", type=Path, metavar="DIR", help="of torch's source")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "files", nargs="*", default=FILES, metavar="FILE", help="within DIR (default: the three of QAT)"
    )
    arguments = parser.parse_args(argv)
    if arguments.way:
        run(arguments.way, Path(arguments.files[0]), arguments.result)
        return 0
    if arguments.checkout is None:
        parser.error("--checkout: expected a checkout of torch's source, which has the tests that the wheel lacks")
    files = [(arguments.checkout / file).resolve() for file in arguments.files]
    if missing := [str(file) for file in files if not file.exists()]:
        parser.error(f"--checkout: there is no {', '.join(missing)}")
    compared = [compare(file) for file in files]
    return 0 if all(compared) else 1


if __name__ == "__main__":
    sys.exit(main())
