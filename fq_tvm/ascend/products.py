"""Which product a SoC name belongs to, and which toolchains serve it, best first."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ArgumentError


@dataclass(frozen=True)
class Product:
    """A family of processors.

    Parameters
    ----------
    name : str
    socs : str
        Regular expression of its SoC names.
    examples : str
        The names in words.
    toolchains : tuple of str
        Those that lower for it, best first.
    core_type : str
        What CANN's TVM fork calls the cores that vector code runs on.
    """

    name: str
    socs: str
    examples: str
    toolchains: tuple[str, ...]
    core_type: str = "AiCore"


PRODUCTS = (
    Product("Atlas A2", r"Ascend910B([1-4]|4-1|2C)", "Ascend910B1..B4, B4-1, B2C", ("npuir", "tbe"), "VectorCore"),
    Product("Atlas A3", r"Ascend910_93(62|72|81|82|91|92)", "Ascend910_9362..9392", ("npuir", "tbe"), "VectorCore"),
    Product("Ascend 950", r"Ascend950(PR|DT)_\w{4}", "Ascend950PR_..., Ascend950DT_...", ("npuir", "tbe")),
    Product(
        "Atlas training series",
        r"Ascend910(A|B|ProA|ProB|PremiumA)?",
        "Ascend910, 910A, 910B, 910ProA, 910ProB, 910PremiumA",
        ("akg", "tbe"),
    ),
    Product("Atlas inference series", r"Ascend310P\d?", "Ascend310P1..P7", ("tbe",)),
    Product("Atlas 200/300/500", r"Ascend310(B[1-4])?", "Ascend310, 310B1..B4", ("tbe",)),
)


def product_of(soc: str) -> Product:
    """Find the product of a SoC name, as CANN spells it.

    Raises
    ------
    ArgumentError
        If no product has it.
    """
    for product in PRODUCTS:
        if re.fullmatch(product.socs, soc):
            return product
    known = "; ".join(f"{p.name}: {p.examples}" for p in PRODUCTS)
    raise ArgumentError(f"unknown SoC {soc!r}; known are {known}", "range")
