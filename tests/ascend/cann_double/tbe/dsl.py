"""The calls, with what the contract says of each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .common import buildcfg, platform
from .common.context import op_context
from .tvm import DTYPES, Constant, Tensor, target

_computing = 0

CASTS = {
    ("float16", "float32"),
    ("float32", "float16"),
    ("int32", "float32"),
    ("float16", "int8"),
}


def _tensor(operand: Any) -> Tensor:
    assert isinstance(operand, Tensor), f"a tensor was expected, not {operand!r}"
    assert _computing, "a call outside dsl.compute()"
    return operand


def _binary(name: str) -> Any:
    def call(lhs: Tensor, rhs: Tensor) -> Tensor:
        _tensor(lhs), _tensor(rhs)
        assert len(lhs.shape) == len(rhs.shape), f"{name} of ranks {len(lhs.shape)} and {len(rhs.shape)}"
        assert lhs.shape == rhs.shape, f"{name} of shapes {lhs.shape} and {rhs.shape}"
        assert lhs.dtype == rhs.dtype, f"{name} of {lhs.dtype} and {rhs.dtype}"
        assert lhs.dtype in ("float16", "float32"), f"{name} of {lhs.dtype}"
        return Tensor(name, lhs.shape, lhs.dtype, (lhs, rhs))

    return call


def _scalar(name: str) -> Any:
    def call(t: Tensor, scalar: Constant) -> Tensor:
        _tensor(t)
        assert isinstance(scalar, Constant) and scalar.dtype == t.dtype, f"{name} of {t.dtype} and {scalar!r}"
        return Tensor(name, t.shape, t.dtype, (t, scalar))

    return call


vadd, vsub, vmul, vdiv, vmin, vmax = map(_binary, ("vadd", "vsub", "vmul", "vdiv", "vmin", "vmax"))
vadds, vmuls, vmins, vmaxs = map(_scalar, ("vadds", "vmuls", "vmins", "vmaxs"))


def broadcast(var: Tensor | Constant, shape: Any, output_dtype: str | None = None) -> Tensor:
    shape = tuple(shape)
    if isinstance(var, Constant):
        return Tensor("broadcast", shape, output_dtype or var.dtype, (var,))
    _tensor(var)
    assert len(var.shape) == len(shape), f"broadcast of rank {len(var.shape)} to {len(shape)}"
    assert all(a in (1, b) for a, b in zip(var.shape, shape, strict=True)), f"broadcast of {var.shape} to {shape}"
    return Tensor("broadcast", shape, var.dtype, (var,))


def cast_to(data: Tensor, dtype: str) -> Tensor:
    _tensor(data)
    # float32 to int32 is there and truncates, which nobody wants here.
    assert (data.dtype, dtype) in CASTS, f"cast from {data.dtype} to {dtype}"
    return Tensor("cast_to", data.shape, dtype, (data,))


def round(t: Tensor, dtype: str = "int32") -> Tensor:
    _tensor(t)
    assert t.dtype == "float32" and dtype == "int32", f"round of {t.dtype} to {dtype}"
    return Tensor("round", t.shape, dtype, (t,))


@contextlib.contextmanager
def compute() -> Iterator[None]:
    global _computing
    _computing += 1
    yield
    _computing -= 1


def classify(inputs: list[dict[str, Any]], mode: str) -> list[list[dict[str, Any]]]:
    assert mode == "broadcast"
    for item in inputs:
        assert set(item) == {"shape", "range", "dtype", "format", "ori_shape", "ori_format"}, sorted(item)
        assert item["dtype"] in DTYPES and len(item["range"]) == len(item["shape"])
    assert len({len(item["shape"]) for item in inputs}) == 1, "inputs of different rank"
    # Dimensions that are 1 everywhere go: the calls may not count on a rank.
    rank = len(inputs[0]["shape"])
    kept = [d for d in range(rank) if any(item["shape"][d] != 1 for item in inputs)] or [0]
    return [[{**item, "shape": [item["shape"][d] for d in kept]} for item in inputs]]


def auto_schedule(outputs: list[Tensor]) -> Any:
    assert target.entered, "auto_schedule outside tvm.target.cce()"
    assert len(outputs) == 2 and all(isinstance(t, Tensor) and t.call.split()[0] != "placeholder" for t in outputs)
    return ("schedule", outputs)


def build(schedules: list[Any], config: dict[str, Any]) -> None:
    assert op_context.current is not None and op_context.current.infos, "build without an operator in the context"
    assert platform.soc, "build without a SoC"
    assert set(config) == {"name", "tensor_list"} and len(schedules) == len(config["tensor_list"]) == 1
    (tensors,) = config["tensor_list"]
    folder = Path(buildcfg.current["kernel_meta_parent_dir"]) / "kernel_meta"
    folder.mkdir(parents=True, exist_ok=True)
    recorded: list[dict[str, Any]] = []
    known: dict[int, int] = {}

    def record(node: Any) -> Any:
        if isinstance(node, Constant):
            return {"constant": node.value, "dtype": node.dtype}
        if id(node) not in known:
            operands = [record(o) for o in node.operands]
            known[id(node)] = len(recorded)
            recorded.append({"call": node.call, "shape": list(node.shape), "dtype": node.dtype, "operands": operands})
        return known[id(node)]

    arguments = [record(t) for t in tensors]
    (folder / f"{config['name']}.o").write_text(json.dumps({"nodes": recorded, "arguments": arguments}))
    described = {"kernelName": config["name"], "blockDim": 8, "soc": platform.soc, "core": platform.core_type}
    (folder / f"{config['name']}.json").write_text(json.dumps(described))
