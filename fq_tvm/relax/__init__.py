"""The operator inside TVM's graph compiler: a Relax operator, passes and a pipeline, importers."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax.backend.cpu_generic import pipeline as cpu

from .frozen import freeze
from .fuse import FuseFakeQuant
from .fusion import DeclareApart, LimitFusion, ScheduleFakeQuant
from .importers import dynamic_shapes, torch_convert_map
from .legalize import LegalizeFakeQuant, legalize
from .op import fake_quantize_per_channel_affine_cachemask, register
from .streaming import CallApart

__all__ = [
    "PIPELINE",
    "CallApart",
    "DeclareApart",
    "FuseFakeQuant",
    "LegalizeFakeQuant",
    "LimitFusion",
    "ScheduleFakeQuant",
    "dynamic_shapes",
    "fake_quantize_per_channel_affine_cachemask",
    "freeze",
    "torch_convert_map",
]

PIPELINE = "fq_tvm"
"""What ``relax.build`` takes as ``relax_pipeline``, once this module is imported."""


def _pipeline(allow_reciprocal: bool = False) -> tvm.transform.Pass:
    """Fold, fuse and legalize, and schedule what came of it among the passes that TVM has for the target by default."""

    @tvm.transform.module_pass(opt_level=0, name="fq_tvm")  # type: ignore[untyped-decorator]
    def run(mod: tvm.IRModule, ctx: object) -> tvm.IRModule:
        del ctx
        target = tvm.target.Target.current(allow_none=True) or tvm.target.Target("llvm")  # as TVM's own
        passes = [relax.transform.FoldConstant(), FuseFakeQuant(allow_reciprocal)]
        if target.kind.name == "llvm":
            passes += [LegalizeFakeQuant(fusible=True), relax.transform.CanonicalizeBindings()]
            passes += [*cpu.library_dispatch_passes(target)]
            for step in cpu.legalize_passes(target):
                passes += [LimitFusion(), step] if step.info.name == "FuseOps" else [step]
            passes += [ScheduleFakeQuant(), *cpu.dataflow_lower_passes(target)]
            passes += [*cpu.finalize_passes(target), DeclareApart(), CallApart()]
        else:
            passes += [LegalizeFakeQuant(), relax.get_default_pipeline(target)]
        with target:
            return tvm.transform.Sequential(passes)(mod)

    return run


register(legalize)
relax.pipeline.PIPELINE_MAP[PIPELINE] = _pipeline
