"""What might have become knobs of a schedule: each beside the kernel that ships, in its default schedule.

    python benchmarks/knobs.py [--case TEXT] [--only TEXT] [--seconds S]

Of each case a line: microseconds of the kernel, then what each variant of its code, or of its launch, takes over that.
``same`` is the kernel again, whose distance from 1 is noise; a gain of a twentieth or more has a star.  Variants of the
code are made of the LLVM IR that TVM emits before it optimizes, by LLVM's own pipeline of the same version (llvmlite);
``reopt`` is that without a change.  Every variant is compared with the reference before it is timed.
``FQ_TVM_NUM_THREADS`` is the number of threads.  docs/decisions/0027 has what came of it.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

os.environ["OMP_WAIT_POLICY"] = "passive"  # before TVM, which imports torch

import llvmlite.binding as llvm
import ml_dtypes  # noqa: F401, gives numpy bfloat16
import tvm

from fq_tvm.bench.cases import Case
from fq_tvm.bench.contenders import Inputs
from fq_tvm.bench.timing import Call, interleave, quiet_threads, ratio, sweeper
from fq_tvm.codegen.build import lower
from fq_tvm.codegen.llvm import DEBUG_INFO, emit, optimize
from fq_tvm.codegen.nontemporal import mark
from fq_tvm.codegen.prefetch import prefetch
from fq_tvm.environment import num_threads
from fq_tvm.launch import threads
from fq_tvm.launch.arguments import check, describe_all
from fq_tvm.launch.buffers import on_memory
from fq_tvm.launch.choose import Choice, choose, constants_of
from fq_tvm.launch.kernel import OBJECT, Kernel, Launch
from fq_tvm.launch.registry import current_target
from fq_tvm.schedule import LIMITS, default_schedule
from fq_tvm.store.cache import Entry

SHAPES: dict[str, list[tuple[tuple[int, ...], int]]] = {
    "float32": [
        *(((1, 1024), 1), ((64, 256), 0), ((64, 256), 1), ((4, 32, 49), 1), ((16, 10, 100), 1), ((8, 64, 14, 14), 1)),
        *(((32, 128, 28, 28), 1), ((64, 512, 7, 7), 1), ((512, 1000, 7), 1), ((333, 1001, 13), 1), ((100000, 3), 1)),
        *(((30000, 10), 1), ((4096, 1000), 1), ((4096, 4096), 0), ((4096, 4096), 1), ((32, 256, 14, 14), 1)),
        *(((8, 512, 28, 28), 1), ((16, 64, 56, 56), 1)),
    ],
    "float16": [
        *(((1, 1024), 1), ((64, 256), 0), ((4, 32, 49), 1), ((64, 512, 7, 7), 1), ((512, 1000, 7), 1)),
        *(((333, 1001, 13), 1), ((100000, 3), 1), ((4096, 1000), 1), ((32, 128, 28, 28), 1)),
    ],
    "bfloat16": [((64, 256), 0), ((4, 32, 49), 1), ((64, 512, 7, 7), 1), ((4096, 1000), 1)],
}
"""Launch-bound ones, short rows, last channels, and what fills memory."""

MEMORY_BYTES, GAIN = 2**25, 0.95
"""Bytes moved from which caches are swept before each call, and what a variant is marked from."""


class Code:
    """The code of the functions that a launch calls, in LLVM IR of several kinds.

    Parameters
    ----------
    choice : Choice
        The launch.
    """

    def __init__(self, choice: Choice) -> None:
        self.choice, self.target = choice, choice.target
        lowered = lower(choice.spec, choice.schedule, choice.target)
        constants = constants_of(choice.spec, choice.target, replace(choice.schedule, static=1), choice.layout.extents)
        static = lower(choice.spec, choice.schedule, choice.target, constants)
        names = {name for call in choice.plan.calls for name in (call.serial, call.threaded)}
        self.functions, self.static_functions = ({n: module[n] for n in names} for module in (lowered, static))

    def shipped(self, static: bool = False) -> str:
        """Return it as the library makes it; static: for one shape."""
        return optimize(self._module(static), tvm.target.Target(self.target.to_tvm()))

    def emitted(self, static: bool = False) -> str:
        """Return it before LLVM optimizes."""
        target = tvm.target.Target({**self.target.to_tvm(), "opt-level": 0})
        ll = tvm.compile(self._module(static), target=target).mod.inspect_source("ll")
        # The level is noted in the module, and would be that of the code, too.
        return mark(DEBUG_INFO.sub("", ll).replace(r",\22opt-level\22:0", ""))

    def optimized(self, ll: str) -> str:
        """Optimize by LLVM's pipeline of the highest level, as TVM does."""
        features = ",".join(f"-{feature}" for feature in self.target.disabled)
        machine = llvm.Target.from_triple(self.target.triple).create_target_machine(
            cpu=self.target.llvm_cpu, features=features, opt=3, reloc="pic"
        )
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = True
        options.loop_unrolling = True
        builder, module = llvm.create_pass_builder(machine, options), llvm.parse_assembly(ll)
        builder.getModulePassManager().run(module, builder)
        return str(module)

    def _module(self, static: bool) -> tvm.IRModule:
        functions = self.static_functions if static else self.functions
        return tvm.IRModule({name: func.with_attr("global_symbol", name) for name, func in functions.items()})


def innermost(function: str) -> list[tuple[str, str]]:
    """Find the innermost loops of a function that TVM emitted, as the blocks that end and begin an iteration."""
    blocks: dict[str, list[str]] = {"entry": []}
    name = "entry"
    for line in function.splitlines():
        if found := re.match(r"([\w.]+):", line):
            name = found[1]
        blocks.setdefault(name, []).append(line)
    before: dict[str, list[str]] = {}
    for name, lines in blocks.items():
        for line in lines:
            if re.match(r" +(br|switch) ", line):
                for successor in re.findall(r"label %([\w.]+)", line):
                    before.setdefault(successor, []).append(name)
    loops: dict[tuple[str, str], set[str]] = {}
    for last, lines in blocks.items():
        for first in re.findall(r"^ +br label %(for_begin[\w.]*)", "\n".join(lines), re.MULTILINE):
            if last.startswith("for_next"):
                body, left = {first, last}, [last]
                while left:
                    new = [block for block in before.get(left.pop(), ()) if block not in body]
                    body.update(new)
                    left += new
                loops[last, first] = body
    return [ends for ends, body in loops.items() if not any(o[0] in body for o in loops if o != ends)]


def with_metadata(ll: str, **attributes: int) -> str:
    """Ask LLVM for something in every innermost loop, e.g. ``width=32`` of its vectors, by the metadata of loops."""
    node, nodes, functions = 10**6, [], re.split(r"(?m)^(?=define )", ll)
    for number, function in enumerate(functions):
        for last, first in innermost(function):
            asked = [f'!{{!"llvm.loop.{METADATA[name]}", i32 {value}}}' for name, value in attributes.items()]
            names = [f"!{node + n}" for n in range(1, len(asked) + 1)]
            nodes += [f"{name} = {value}" for name, value in zip(names, asked, strict=True)]
            nodes.append(f"!{node} = distinct !{{!{node}, {', '.join(names)}}}")
            branch = rf"(?ms)(^{re.escape(last)}:.*?br label %{re.escape(first)})$"
            function = re.sub(branch, rf"\1, !llvm.loop !{node}", function, count=1)
            node += 10
        functions[number] = function
    return "".join(functions) + "\n".join(nodes) + "\n"


METADATA = {"width": "vectorize.width", "interleave": "interleave.count", "unroll": "unroll.count"}


def asked(code: Code, static: bool = False, **attributes: int) -> str:
    """Make code of what is asked for by metadata."""
    return code.optimized(with_metadata(code.emitted(static), **attributes))


def prefetching(code: Code, ahead: int) -> str:
    """Make the code with prefetches."""
    return prefetch(code.shipped(), ahead)


VARIANTS: dict[str, Callable[[Code], str]] = {
    "same": Code.shipped,
    "static": partial(Code.shipped, static=True),
    "reopt": lambda code: code.optimized(code.emitted()),
    **{f"width {width}": partial(asked, width=width) for width in (8, 32, 64)},
    **{f"interleave {count}": partial(asked, interleave=count) for count in (1, 2, 8)},
    **{f"unroll {count}": partial(asked, unroll=count) for count in (2, 4)},
    "width 64, interleave 1": partial(asked, width=64, interleave=1),
    "static, unroll 4": partial(asked, static=True, unroll=4),
    **{f"prefetch {ahead}": partial(prefetching, ahead=ahead) for ahead in (128, 256, 512, 1024, 4096)},
}
"""Of the code, by name."""

SHARES = (1, 2, 8, 16)
"""Pieces of work for each thread, beside those of :data:`fq_tvm.launch.threads.SHARES`."""


def contenders(case: Case, only: str) -> dict[str, Call]:
    """Build the variants of a case and compare each with the reference; return the calls, the kernel's first."""
    inputs = Inputs(case)
    checked = check(describe_all((*inputs.arguments[:3], *inputs.results)), *inputs.arguments[3:])
    spec, target = choose(checked, current_target()).spec, current_target()
    schedule = default_schedule(spec, target)
    wanted, calls = inputs.expected(), {}

    def prepare(name: str, choice: Choice, ll: str) -> None:
        kernel = Kernel(spec, choice.schedule, target, Entry({}, "", {OBJECT: emit(ll)[0]}))
        calls[name] = on_memory(Launch(kernel, choice), checked.operands)
        inputs.check(name, calls[name], wanted)

    choice = choose(checked, target, schedule)
    code = Code(choice)
    prepare("kernel", choice, code.shipped())
    for name, make in VARIANTS.items():
        if re.search(only, name):
            prepare(name, choice, make(code))
    other = choose(checked, target, replace(schedule, stream_from=LIMITS["stream_from"]))
    streams = choose(checked, target, replace(schedule, stream_from=1))
    if spec.nontemporal and other.plan != streams.plan and re.search(only, "stream"):
        for name, of in (("stream", streams), ("no stream", other)):
            if of.plan != choice.plan:
                prepare(name, of, Code(of).shipped())
    if choice.plan.threaded and num_threads() > 1 and re.search(only, "shares"):
        layers = threads.prepare()

        def with_shares(shares: int, call: Call) -> Call:
            def launch() -> None:
                layers._configure(num_threads(), shares, threads.LOOK_NS)
                call()
                layers._configure(num_threads(), threads.SHARES, threads.LOOK_NS)

            return launch

        calls |= {f"shares {n}": with_shares(n, calls["kernel"]) for n in SHARES}
    return calls


def main(argv: Sequence[str] | None = None) -> None:
    """Build, check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="", help="cases whose name matches this expression")
    parser.add_argument("--only", default="", help="variants whose name matches this expression")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case (default: 1)")
    options = parser.parse_args(argv)
    quiet_threads()
    for module in (llvm.initialize_all_targets, llvm.initialize_all_asmprinters):
        module()
    for case in (Case(shape, axis, dtype) for dtype, shapes in SHAPES.items() for shape, axis in shapes):
        if not re.search(options.case, case.name):
            continue
        calls = contenders(case, options.only)
        times = interleave(calls, options.seconds, sweeper() if case.moved_bytes > MEMORY_BYTES else None)
        over = {name: ratio(times, name, "kernel").median for name in calls if name != "kernel"}
        found = (f"{name} {value:.3f}{'*' * (value <= GAIN)}" for name, value in over.items())
        print(f"{case.name} {statistics.median(times['kernel']) * 1e6:.1f} us: {', '.join(found)}", flush=True)


if __name__ == "__main__":
    main()
