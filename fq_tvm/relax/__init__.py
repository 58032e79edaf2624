"""The operator inside TVM's graph compiler: a Relax operator, passes and a pipeline, importers."""

from __future__ import annotations

from .legalize import LegalizeFakeQuant, legalize
from .op import fake_quantize_per_channel_affine_cachemask, register

__all__ = ["LegalizeFakeQuant", "fake_quantize_per_channel_affine_cachemask"]

register(legalize)
