"""``fq-tvm tune``: a search for faster schedules."""

from __future__ import annotations

import importlib.util
import math

from ..errors import FqError
from .output import print_json, print_line, print_table, progress
from .parser import CASE, JSON, QUIET, Arguments, command, host_port, one_of, option, seconds


@command(
    one_of(CASE, option("--all", action="store_true", help="every case, and the boundary between rows and lanes")),
    option("--budget", type=seconds, default=600.0, metavar="SECONDS", help="of the whole search (default: 600)"),
    option("--seconds", type=seconds, default=0.3, metavar="S", help="of one comparison (default: 0.3)"),
    option("--seed", type=int, default=0, metavar="N", help="of the order of candidates (default: 0)"),
    option("--rpc", type=host_port, metavar="HOST:PORT", help="measure on a machine of this tvm.rpc tracker"),
    option("--key", default="", metavar="KEY", help="of the machine at the tracker; needs --rpc"),
    option("-o", "--output", metavar="FILE", help="the record file (default: as said above)"),
    option("--log", metavar="FILE", help="the log of trials (default: beside the record file)"),
    option("--plot", metavar="OUT.png", help="draw the search"),
    QUIET,
    JSON,
)
def tune(arguments: Arguments) -> None:
    """Find faster schedules by measuring, and keep them.

    Cases are grouped by class, dtype and size; each group is searched for its share of the budget. Candidates are
    built, checked bit for bit and timed in another process, in turns with the best so far, which is replaced only by
    what is better by more than the noise. Every trial is a line of the log; a search that was interrupted goes on
    from there when it is started again. What was found is written to schedules/CPU.json in a checkout, to the user's
    data folder elsewhere, and used by every later process; `fq-tvm info` says so. FQ_TVM_TARGET tunes code for a
    lesser CPU. Leave the machine alone meanwhile.
    """
    from ..bench import find_cases
    from ..tuning.plot import plot_trials
    from ..tuning.search import Progress, log_path, tune_cases

    if not arguments.all and not arguments.case:
        raise FqError("give --case TEXT, or --all")
    if bool(arguments.rpc) != bool(arguments.key):
        raise FqError("--rpc and --key need each other")
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        raise FqError('--plot needs matplotlib; `pip install "fq_tvm[plot]"`')
    cases = find_cases(arguments.case)
    names = ("budget", "seed", "output", "log", "rpc", "key", "seconds")
    options = {name: getattr(arguments, name) for name in names}
    with progress(1, "trial", arguments.quiet) as bar:

        def show(step: Progress) -> None:
            if step.trial == 1:
                bar.set_description(step.job)
                bar.reset(step.trials - 1)
            gain = f"best so far gains {step.gain:.1%}"
            bar.set_postfix_str(f"{gain}, {step.seconds_left:.0f} s and {step.jobs_left} jobs left")
            bar.update(step.trial - 1 - bar.n)

        path, content = tune_cases(cases, **options, progress=show, boundary=arguments.all)
    log = arguments.log or log_path(path)
    if arguments.plot:
        plot_trials(log, arguments.plot)
    if arguments.json:
        return print_json({"path": path, "log": log, **content.to_json()})
    rows = [
        [
            f"{dict(r.match).get('iteration')} {dict(r.match).get('dtype')} {r.size_class}",
            f"{r.measured.get('over_default', math.nan):.3f}",
            f"{r.measured.get('over_limit', math.nan):.3f}",
            ", ".join(f"{knob} {value}" for knob, value in r.schedule.to_json().items()),
        ]
        for r in content.records
    ]
    print_table(["kernels", "/ default", "/ limit", "schedule"], rows)
    if content.rows_min_inner is not None:
        print_line(f"rows from an inner extent of {content.rows_min_inner}")
    print_line(f"wrote {path}; trials are in {log}")
