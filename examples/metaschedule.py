"""Search the space of schedules with TVM's MetaSchedule, and replay the best from its database.

    python examples/metaschedule.py [TRIALS]

For people who experiment there; the library's own tuner is `fq-tvm tune`.  Needs `pip install "fq_tvm[tune]"`, and a C
compiler, which MetaSchedule links every candidate with.
"""

import logging
import os
import sys
import tempfile
from types import ModuleType
from typing import Any

import numpy as np
import tvm
from tvm.s_tir import meta_schedule

import fq_tvm
from fq_tvm.launch.registry import current_target
from fq_tvm.tuning import metaschedule

TRIALS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
SPEC, SHAPE = fq_tvm.FakeQuantSpec("rows"), (8, 64, 784)


def build(module: Any, target: Any, _parameters: Any) -> Any:
    """What MetaSchedule's own builder does, less an import that takes half a minute."""
    import tvm

    return tvm.tirx.build(module, target=target)


def main() -> None:
    logging.disable(logging.WARNING)
    # TVM imports them for every search, which takes half a minute; they are for units that multiply matrices.
    sys.modules.setdefault("tvm.s_tir.tensor_intrin", ModuleType("tvm.s_tir.tensor_intrin"))
    module = metaschedule.metaschedule_module(SPEC, SHAPE)
    target = tvm.target.Target({**current_target().to_tvm(), "num-cores": os.cpu_count() or 1})
    builder = meta_schedule.builder.LocalBuilder(max_workers=1, timeout_sec=120, f_build=build)
    runner = meta_schedule.runner.LocalRunner(
        timeout_sec=120,
        evaluator_config=meta_schedule.runner.EvaluatorConfig(number=3, repeat=1, min_repeat_ms=5),
    )
    with tempfile.TemporaryDirectory() as folder:
        database = meta_schedule.tune_tir(
            module,
            target,
            work_dir=folder,
            max_trials_global=TRIALS,
            num_trials_per_iter=TRIALS,
            builder=builder,
            runner=runner,
            space=metaschedule.metaschedule_space(SPEC),
            strategy="replay-trace",
            cost_model="random",
            measure_callbacks=[meta_schedule.measure_callback.AddToDatabase()],
            seed=1,
        )
        replayed = database.query_schedule(module, target, "main")
        if replayed is None:
            sys.exit("no trial could be measured")
        records = database.get_all_tuning_records()
        print(f"{len(records)} trials, best {min(float(r.run_secs[0]) for r in records) * 1e6:.1f} us")

    run = tvm.compile(replayed.mod, target=target)["main"]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SHAPE, np.float32) * 40
    scale, zero_point = rng.random(SHAPE[1], np.float32) + 0.3, rng.integers(-9, 9, SHAPE[1]).astype(np.int32)
    # TVM's own calling convention promises 64-byte alignment, so the tensors are TVM's.
    tensors = [tvm.runtime.tensor(array) for array in (x, scale, zero_point)]
    out, mask = tvm.runtime.empty(SHAPE, "float32"), tvm.runtime.empty(SHAPE, "bool")
    run(*tensors, out, mask)
    expected = fq_tvm.reference.fake_quant(x, scale, zero_point, 1, -128, 127)
    assert out.numpy().tobytes() == expected[0].tobytes()
    assert mask.numpy().tobytes() == expected[1].tobytes()
    print("the replayed kernel equals the reference bit for bit")


if __name__ == "__main__":
    main()
