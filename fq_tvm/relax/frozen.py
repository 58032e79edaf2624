"""Copies a torch model with its fake quantization modules made constants, which torch.export takes."""

from __future__ import annotations

import copy
from typing import Any

from ..errors import ArgumentError

BASE = "FakeQuantizeBase"
"""What the bases of fake quantization modules are called, of ``torch.ao.quantization`` and of ``torchao``."""

NEEDED = ("scale", "zero_point", "activation_post_process", "qscheme")
"""What is read of such a module."""


def freeze(model: Any) -> Any:
    """Copy a model with every fake quantization module made one of constant parameters, which torch.export takes.

    Parameters
    ----------
    model : torch.nn.Module
        With modules of ``FakeQuantize``, ``FusedMovingAvgObsFakeQuantize``, ``FixedQParamsFakeQuantize`` or the
        learnable ones, of ``torch.ao.quantization`` or of ``torchao.quantization.pt2e``, per channel or per tensor.
        Observers no longer run in the copy; modules whose fake quantization is switched off become identities; those
        that stand under several names remain one module.

    Returns
    -------
    torch.nn.Module
        In the mode, training or evaluation, of the model.  Scales and zero points keep their dtype when the copy is
        converted to another one, as by ``.to(torch.bfloat16)``.

    Raises
    ------
    ArgumentError
        If a fake quantization module has parameters that torch itself cannot quantize with (per channel, scales other
        than float32), none yet, others for each input (dynamic ones), or others than per channel or per tensor.
    """
    if _is_fake_quantization(model):
        return _frozen(model, "the model")
    model = copy.deepcopy(model)
    done: dict[int, Any] = {}
    for path, parent in list(model.named_modules()):
        for name, child in parent._modules.items():  # named_children() leaves out second names of a module
            if _is_fake_quantization(child):
                if id(child) not in done:
                    # the given module is kept, so that its id stays its own
                    done[id(child)] = child, _frozen(child, f"{path}.{name}".lstrip("."))
                parent._modules[name] = done[id(child)][1]
    return model


def _is_fake_quantization(module: Any) -> bool:
    """Whether a module is of a base for fake quantization, without importing those who have one."""
    return any(base.__name__ == BASE for base in type(module).__mro__)


def _frozen(given: Any, name: str) -> Any:
    """Return the module that stands for a fake quantization module."""
    import torch

    if not int(given.fake_quant_enabled[0]):
        return torch.nn.Identity().train(given.training)
    kind = type(given).__name__
    missing = [attribute for attribute in NEEDED if getattr(given, attribute, None) is None]
    if missing:
        raise ArgumentError(
            f"{name} ({kind}) has no {' and no '.join(missing)}; expected parameters per channel or per tensor: call "
            f"the model once, or replace such a module by one of constants"
        )
    if getattr(given, "is_dynamic", False) and int(given.observer_enabled[0]):
        raise ArgumentError(
            f"{name} ({kind}) is dynamic, with parameters of each input; expected constants: disable its observer"
        )
    scheme, observer = given.qscheme, given.activation_post_process
    per_channel = scheme in (
        torch.per_channel_affine,
        torch.per_channel_symmetric,
        torch.per_channel_affine_float_qparams,
    )
    low, high = int(observer.quant_min), int(observer.quant_max)
    scale, zero_point = given.scale.detach().clone(), given.zero_point.detach().clone()
    if per_channel and scale.dtype != torch.float32:
        raise ArgumentError(
            f"{name} ({kind}) has scales of {_name(scale)}, with which torch cannot quantize per channel; expected "
            f"float32: convert the model to another dtype before the module is prepared, or after it is frozen",
            "dtype",
        )
    if isinstance(given.zero_point, torch.nn.Parameter):  # what the learnable ones do in each call
        if hasattr(given, "static_enabled"):  # torch.ao's alone
            scale = scale.clamp(min=float(given.eps))
        symmetric = scheme in (torch.per_channel_symmetric, torch.per_tensor_symmetric)
        zero_point = torch.zeros_like(zero_point) if symmetric else zero_point.round().clamp(low, high)
        zero_point = zero_point.to(torch.int32)
    elif not zero_point.dtype.is_floating_point:
        zero_point = zero_point.to(torch.int32)
    return _constants(scale, zero_point, int(given.ch_axis) if per_channel else None, (low, high)).train(given.training)


def _constants(scale: Any, zero_point: Any, axis: int | None, quant_range: tuple[int, int]) -> Any:
    """Make a module that quantizes with given parameters; per tensor where there is no axis."""
    import torch

    class Frozen(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.axis = axis
            self.low, self.high = quant_range
            if axis is None:
                self.scale, self.zero_point = float(scale.float()), int(zero_point)
            else:
                self.register_buffer("scale", scale)
                self.register_buffer("zero_point", zero_point)

        def _apply(self, function: Any, recurse: bool = True) -> Any:
            """Move the parameters, and keep their dtype: torch quantizes per channel with float32 alone."""

            def moved(tensor: Any) -> Any:
                result = function(tensor)
                return result if result.dtype == tensor.dtype else tensor.to(result.device)

            return super()._apply(moved, recurse)

        def forward(self, x: Any) -> Any:
            if self.axis is None:
                return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, self.low, self.high)
            return torch.fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, self.axis, self.low, self.high
            )

    return Frozen()


def _name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
