"""``fq-tvm ascend``: the operator for an NPU."""

from __future__ import annotations

from .output import print_json, print_line
from .parser import BITS, JSON, Arguments, command, extents, option, quant_range


@command(
    option(
        "--shape",
        type=extents,
        required=True,
        metavar="N,N,...",
        help="extents; ? for one known only at run time (npuir)",
    ),
    option("--axis", type=int, default=0, help="the channel dimension (default: 0)"),
    option("--dtype", choices=("float32", "float16"), default="float32", help="of x and out (default: float32)"),
    option("--scale-dtype", choices=("float32", "float16"), default="float32", help="of scale (default: float32)"),
    *BITS,
    option("--soc", default="Ascend910B1", help="the processor, as CANN spells it (default: Ascend910B1)"),
    option(
        "--toolchain", default="auto", metavar="auto|npuir|akg|tbe", help="what lowers it (default: the best there is)"
    ),
    option(
        "-o", "--output", default="artifacts/ascend", metavar="DIR", help="of the artifact (default: artifacts/ascend)"
    ),
    JSON,
)
def ascend(arguments: Arguments) -> None:
    """Lower the operator for an Ascend NPU, as far as the toolchains on this machine go.

    The artifact is a directory: what was emitted, what each stage made of it, the object where the machine can make
    one, and meta.json, which says what a machine with CANN has to do to finish. docs/ascend.md has the table of
    products and toolchains.
    """
    from ..ascend import lower

    tensor = (arguments.shape, arguments.axis, arguments.dtype, arguments.scale_dtype)
    made = lower(*tensor, *quant_range(arguments), arguments.soc, arguments.toolchain, arguments.output)
    if arguments.json:
        return print_json({"directory": made.directory, **made.to_json()})
    print_line(f"{made.directory}: {made.product}, {made.toolchain} {made.toolchain_version} ({made.reason})")
    print_line(f"reached: {made.reached}")
    for kernel in made.kernels:
        print_line(
            f"kernel {kernel.name}: block dimension {kernel.block_dim}, files {', '.join(kernel.files.values())}"
        )
    if made.estimate:
        print_line(f"expected: {made.estimate}")
    for step in made.remaining:
        print_line(f"to finish: {step}")
