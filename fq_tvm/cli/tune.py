"""``fq-tvm tune``: a search for faster schedules."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import FqError
from .output import print_json, print_line, print_table, progress
from .parser import CASE, JSON, QUIET, Arguments, amount, command, host_port, one_of, option, seconds

if TYPE_CHECKING:
    from ..tuning.log import Result


@command(
    one_of(
        CASE,
        option("--all", action="store_true", help="every case, and the boundary between rows and lanes"),
        option("--show", metavar="LOG", help="search nothing; print, and perhaps draw, what a log says"),
    ),
    option(
        "--static",
        action="store_true",
        help="search each case by itself, for a record of its shape alone, with the extents in the code perhaps; "
        "needs --case",
    ),
    option(
        "--budget",
        type=seconds,
        default=600.0,
        metavar="SECONDS",
        help="of all, with the last comparisons (default: 600)",
    ),
    option("--seconds", type=seconds, default=0.1, metavar="S", help="between two decisions (default: 0.1)"),
    option(
        "--min-gain",
        type=amount,
        metavar="PERCENT",
        help="what a schedule has to gain to be kept (default: 3; 10 for the records that a checkout ships)",
    ),
    option("--seed", type=int, default=0, metavar="N", help="of the order of candidates (default: 0)"),
    option(
        "--search",
        choices=["estimated", "nearest", "tpe"],
        default="estimated",
        help="what is tried next: what has the knobs that gained most (estimated, the default), what is nearest to the "
        "best so far, or what optuna samples (tpe)",
    ),
    option("--rpc", type=host_port, metavar="HOST:PORT", help="measure on the machines of this tvm.rpc tracker"),
    option("--key", default="", metavar="KEY", help="of the machines at the tracker; needs --rpc"),
    option("-o", "--output", metavar="FILE", help="the record file (default: as said above)"),
    option("--log", metavar="FILE", help="the log of trials (default: beside the record file)"),
    option("--plot", metavar="OUT.png", help="draw the search"),
    QUIET,
    JSON,
)
def tune(arguments: Arguments) -> None:
    """Find faster schedules by measuring, and keep them.

    Cases are grouped by class, dtype and size; each group is searched for its share of the budget. With --static each
    case is a group, and what is found serves tensors of its shape alone, before what serves its size. Candidates are
    built, checked bit for bit and timed in another process, in turns with the best so far, where tensors of their size
    live. A sequential test decides: the chance that a search takes over anything that is no faster is at most one in
    twenty. What was found is compared with the default once more. Every trial is a line of the log; a search that was
    interrupted goes on from there when it is started again. What was found is written to schedules/CPU.json in a
    checkout, to the user's data folder elsewhere, and used by every later process; `fq-tvm info` says so. FQ_TVM_TARGET
    tunes code for a lesser CPU. Leave the machine alone meanwhile.
    """
    from ..bench import find_cases
    from ..tuning.plot import plot_trials
    from ..tuning.search import Found, Progress, Settings, log_path, tune_cases

    if not arguments.all and not arguments.case and not arguments.show:
        raise FqError("give --case TEXT, --all, or --show LOG")
    if arguments.static and not arguments.case:
        raise FqError("--static needs --case, which says the shapes")
    if bool(arguments.rpc) != bool(arguments.key):
        raise FqError("--rpc and --key need each other")
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        raise FqError('--plot needs matplotlib; `pip install "fq_tvm[plot]"`')
    if arguments.show:
        return _show(arguments.show, arguments.plot, arguments.json)
    cases, results = find_cases(arguments.case), list[Found | tuple[str, str]]()
    names = ("budget", "seed", "output", "log", "rpc", "key", "seconds", "search")
    options = {name: getattr(arguments, name) for name in names}
    if arguments.min_gain is not None:
        options["min_gain"] = arguments.min_gain / 100
    Settings(**options)  # says what is wrong with them before there is a bar
    with progress(1, "trial", arguments.quiet) as bar:

        def show(step: Progress) -> None:
            if step.trial == 1:
                bar.set_description(step.job)
                bar.reset(step.trials - 1)
            gain = f"best so far gains {step.gain:.1%}"
            bar.set_postfix_str(f"{gain}, {step.seconds_left:.0f} s and {step.jobs_left} jobs left")
            bar.update(step.trial - 1 - bar.n)

        def failure(name: str, error: str) -> None:
            results.append((name, error))

        reports = {"progress": show, "result": results.append, "failure": failure}
        path, content = tune_cases(cases, **options, **reports, static=arguments.static, boundary=arguments.all)
    log = arguments.log or log_path(path)
    if arguments.plot:
        plot_trials(log, arguments.plot)
    if arguments.json:
        return print_json({"path": path, "log": log, **content.to_json(), "results": _to_json(results)})
    _print_results(results)
    if content.rows_min_inner is not None:
        print_line(f"rows from an inner extent of {content.rows_min_inner}")
    print_line(f"wrote {path}; trials are in {log}")


def _show(log: str, picture: str | None, as_json: bool) -> None:
    """Print what a log says, and perhaps draw it."""
    from ..tuning.log import searches
    from ..tuning.plot import plot_trials

    logged = searches(log)
    results = [search.result or (search.name, search.error) for search in logged]
    if picture:
        plot_trials(log, picture)
    if as_json:
        return print_json({"log": log, "results": _to_json(results)})
    _print_results(results)
    print_line(f"{sum(len(s.history.trials) for s in logged)} trials of {len(logged)} searches")


def _to_json(results: Sequence[Result | tuple[str, str]]) -> list[dict[str, object]]:
    """Return a dictionary a search: its result, or its name and why there is none."""
    return [{"name": r[0], "error": r[1]} if isinstance(r, tuple) else r.to_json() for r in results]


def _print_results(results: Sequence[Result | tuple[str, str]]) -> None:
    """Print a line a search: its result, or its name and why there is none."""
    rows = []
    for result in results:
        if isinstance(result, tuple):
            name, error = result
            rows.append([name, "-", "-", f"no: {error}", ""])
            continue
        gain = str(result.gain) if result.best != result.start else "-"
        kept = ("yes: " if result.kept else "no: ") + result.why
        if machines := result.measured.get("machines"):
            kept += f"; the least of {', '.join(machines)}" if len(machines) > 1 else f"; on {next(iter(machines))}"
        rows.append([result.name, gain, f"{result.measured.get('over_limit', math.nan):.3f}", kept, result.changes])
    print_table(["kernels", "gain over default", "/ limit", "kept", "best found"], rows)
