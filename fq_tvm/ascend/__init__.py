"""Lowering the operator to Ascend processors: one tensor expression, three toolchains.

``lower`` walks the tensor expression into a list of primitives, prints it for the toolchain that serves the product,
and runs that toolchain as far as this machine goes.  Nothing here needs an NPU or CANN, and importing it needs neither
TVM nor a toolchain.  ``docs/ascend.md`` says what is proven without hardware and what is not.
"""

from .artifact import AscendArtifact, lower, toolchains
from .estimate import Estimate
from .problem import Problem
from .products import PRODUCTS, Product, product_of
from .toolchain import Kernel, LoweringError, Toolchain, ToolchainMissing

__all__ = [
    "PRODUCTS",
    "AscendArtifact",
    "Estimate",
    "Kernel",
    "LoweringError",
    "Problem",
    "Product",
    "Toolchain",
    "ToolchainMissing",
    "lower",
    "product_of",
    "toolchains",
]
