"""The operator for PyTorch: with a gradient, for the compilers of torch, and in the place of torch's own kernels.

Importing this module registers ``torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask`` and changes nothing of
torch's.  :func:`enable` replaces torch's fake quantization on the CPU, with the same results and errors, until
:func:`disable` puts it back.
"""

from __future__ import annotations

from .blocks import fake_quantize
from .operator import fake_quantize_per_channel_affine, fake_quantize_per_channel_affine_cachemask
from .override import disable, enable, enabled

__all__ = [
    "disable",
    "enable",
    "enabled",
    "fake_quantize",
    "fake_quantize_per_channel_affine",
    "fake_quantize_per_channel_affine_cachemask",
]
