"""The operator inside TVM's graph compiler: a Relax operator, passes and a pipeline, importers."""

from __future__ import annotations

import tvm
from tvm import relax

from .frozen import freeze
from .fuse import FuseFakeQuant
from .importers import dynamic_shapes, torch_convert_map
from .legalize import LegalizeFakeQuant, legalize
from .op import fake_quantize_per_channel_affine_cachemask, register

__all__ = [
    "PIPELINE",
    "FuseFakeQuant",
    "LegalizeFakeQuant",
    "dynamic_shapes",
    "fake_quantize_per_channel_affine_cachemask",
    "freeze",
    "torch_convert_map",
]

PIPELINE = "fq_tvm"
"""What ``relax.build`` takes as ``relax_pipeline``, once this module is imported."""


def _pipeline(allow_reciprocal: bool = False) -> tvm.transform.Pass:
    """Fuse, legalize, then do what TVM does for the target by default."""

    @tvm.transform.module_pass(opt_level=0, name="fq_tvm")  # type: ignore[untyped-decorator]
    def run(mod: tvm.IRModule, ctx: object) -> tvm.IRModule:
        del ctx
        target = tvm.target.Target.current(allow_none=False)
        passes = [FuseFakeQuant(allow_reciprocal), LegalizeFakeQuant(), relax.get_default_pipeline(target)]
        return tvm.transform.Sequential(passes)(mod)

    return run


register(legalize)
relax.pipeline.PIPELINE_MAP[PIPELINE] = _pipeline
