"""The passes of the vendor's compiler from named operations to a tiled, multi-core kernel.

From the public sources of its driver; knows neither a program nor a process.
"""

from __future__ import annotations

from string import Template

# The passes that the vendor's driver runs on a named-op module, from its public sources, without the last
# hfusion-normalize-ops: with it, results of rank above 1 in one byte or one bit are refused.
_CLEAN = ("cse", "$canonicalize", "func(normalize-tensor-ops)")
_CLEAN_FILL = (
    "cse",
    "$canonicalize{disable-patterns=FoldFillWithTensorReshapeCollapse,FoldFillWithTensorReshapeExpand}",
    "func(normalize-tensor-ops)",
)
_CLEAN_TRANSPOSE = ("cse", "$canonicalize{disable-patterns=FoldTransposeWithTranspose}", "func(normalize-tensor-ops)")
_PASSES = (
    # Named ops of every dialect become HFusion's.
    "func(erase-symbol)",
    "convert-arith-to-hfusion",
    "convert-math-to-hfusion",
    "convert-linalg-to-hfusion",
    "convert-tensor-to-hfusion",
    "func(canonicalize-tensor-reshape)",
    *_CLEAN,
    "convert-arith-to-hfusion",
    "func(hfusion-convert-generic-to-named)",
    "func(hfusion-legalize-bf16)",
    "func(hfusion-decompose{hfusion-decompose-phase=no-constraint})",
    "func(hfusion-normalize-slice-ops)",
    "func(hfusion-normalize-ops)",
    "hfusion-legalize-bool",
    "func(hfusion-simplify-ops)",
    "func(hfusion-inline-brc)",
    "func(hfusion-normalize-ops)",
    *_CLEAN,
    # Dimensions that need not be apart become one.
    "func(bubble-up-extract-slice)",
    *_CLEAN,
    "func(linalg-fold-unit-extent-dims{use-rank-reducing-slices=false fold-rank-reducing-slices=false})",
    *_CLEAN,
    "func(convert-arith-to-hfusion)",
    "func(hfusion-compose-multi-reduce{aggressive=true})",
    "func(propagate-reshape)",
    "func(hfusion-simplify-ops)",
    *_CLEAN,
    "func(fold-tensor-empty)",
    "func(hfusion-flatten-ops{flatten-mode=tidy skip-host=false multi-dynamic-shape=false})",
    "func(canonicalize-tensor-reshape)",
    *_CLEAN_FILL,
    "func(hfusion-cache-io-for-return-arg)",
    "func(fold-tensor-empty)",
    *_CLEAN_FILL,
    # One fused kernel.
    "func(hfusion-fold-symbolic-dim)",
    "func(hfusion-infer-func-fusion-kind)",
    "hfusion-fuse-ops{output-mode=multi multi-kernel=false}",
    *_CLEAN_FILL,
    "func(hfusion-outline-single-op)",
    *_CLEAN_FILL,
    "func(hfusion-unfold-symbolic-dim)",
    "func(hfusion-drop-symbols)",
    "hfusion-eliminate-duplicate-funcs",
    "func(hfusion-downgrade-fp64)",
    "func(trickle-concat-down)",
    "func(bubble-pad-up)",
    "hfusion-legalize-bool",
    "func(fold-tensor-empty)",
    "func(normalize-last-dim-unaligned-tensor-op)",
    # Tiles, blocks and the host's tiling function.
    "func(hfusion-reorder-ops)",
    *_CLEAN_FILL,
    "func(hfusion-decompose{hfusion-decompose-phase=after-hfusion-flatten})",
    "$schedule",
    "func(hfusion-decompose-multi)",
    "func(hfusion-convert-generic-to-named)",
    *_CLEAN_TRANSPOSE,
    "func(hfusion-reorder-ops)",
    "hfusion-constantize-tiling-data",
    *_CLEAN_TRANSPOSE,
    "hfusion-pack-tiling-data{emit-get-tiling-struct-size-function=true pack-tiling-key=false}",
    "convert-arith-to-affine",
    *_CLEAN_TRANSPOSE,
    "scf-for-loop-canonicalization",
    *_CLEAN_TRANSPOSE,
    "hfusion-wrap-host-func{remove-unused-arguments=true}",
    *_CLEAN_TRANSPOSE,
    "func(hfusion-inline-brc)",
    "hfusion-add-ffts-addr",
    "hfusion-hoist-tensor-empty",
    "func(hfusion-decompose{hfusion-decompose-phase=after-hfusion-flatten})",
)


def hfusion_pipeline(
    block_dim: int, canonicalize: str = "canonicalize-ext", tuning: int = 0, double: bool = False
) -> str:
    """Spell the passes from named ops to a tiled, multi-core kernel.

    Parameters
    ----------
    block_dim : int
        Blocks to spread the tiles over.
    canonicalize : str
        What the compiler's canonicalization is called.
    tuning : int
        Bits of buffer for each element that tiles allow for beyond what the compiler counts; more makes tiles smaller.
    double : bool
        Whether tiles leave room for buffers that are there twice.
    """
    options = f"block-dim={block_dim} enable-auto-multi-buffer={str(double).lower()} max-buffer-count-tuning={tuning}"
    passes = Template(",".join(_PASSES).replace("func(", "func.func("))
    schedule = f"hfusion-auto-schedule{{{options}}}"
    return f"builtin.module({passes.substitute(canonicalize=canonicalize, schedule=schedule)})"
