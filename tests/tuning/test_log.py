"""Logs: what is read of one, whatever else is in it, and what a picture of it shows."""

from __future__ import annotations

import json
import math

import pytest

from fq_tvm import FqError, Schedule, cli
from fq_tvm.bench.plot import new_figure
from fq_tvm.tuning import plot
from fq_tvm.tuning.experiment import DROP, FAILED, KEEP, UNDECIDED, Gain, Trial
from fq_tvm.tuning.log import FORMAT, Result, searches

START, BEST = Schedule(), Schedule(rows=64)


def lines(job="1234", name="rows float32 mid"):
    """What a search of five trials and a check leaves."""
    other = Schedule(tile=1024)

    def trial(number, at, candidate, incumbent, verdict, gain):
        gain = None if gain is None else Gain(gain - 0.01, gain, gain + 0.01)
        return Trial(candidate, incumbent, verdict, "why", gain, 20, {"threads": 2}, number=number, at=at).to_json()

    steps = [
        trial(1, 2.0, other, START, FAILED, None),
        trial(2, 5.0, BEST, START, KEEP, 0.05),
        trial(3, 7.0, Schedule(tile=4096), BEST, DROP, -3.0),
        trial(4, 8.0, Schedule(tile=65536), BEST, UNDECIDED, 0.01),
        {**trial(5, 9.0, BEST, START, KEEP, 0.046), "kind": "check"},
    ]
    result = Result(name, START, BEST, False, Gain(0.044, 0.046, 0.048), "gains less than 10%", {"over_limit": 1.1})
    return [
        {"kind": "search", "format": FORMAT, "job": job, "name": name, "start": START.to_json()},
        *({"job": job, "name": name, **step} for step in steps),
        {"kind": "result", "job": job, "measured": result.measured, **result.to_json()},
    ]


def write(path, entries):
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries))
    return path


def test_a_log_is_read_whatever_else_is_in_it(tmp_path):
    first, *others = lines()
    damaged = [
        "{", "[]", "3", "{}", {"kind": "search"}, {**first, "format": 1, "job": "old"},
        {**first, "job": "x", "start": {"no": 1}},
        {**others[0], "gain": [1]}, {**others[0], "at": float("inf")}, {**others[0], "job": "unknown"},
        {**others[-1], "gain": []}, {**others[-1], "best": {"rows": -1}}, {"kind": "boundary"},
        {**others[-1], "measured": {"over_limit": "fast"}},
    ]  # fmt: skip
    again = lines("5678")
    log = write(tmp_path / "log", [*damaged[:7], first, *damaged[7:-4], *others, *damaged[-4:], *again])
    one, two = searches(log)
    assert [one.name, two.name] == ["rows float32 mid", "rows float32 mid, search 2"]
    assert [t.verdict for t in one.history.trials] == [FAILED, KEEP, DROP, UNDECIDED, KEEP]
    assert one.history.incumbent == BEST
    assert one.history.gain == pytest.approx(0.046)
    assert one.result is not None
    assert one.result.changes == "rows 64"
    assert one.result.gain == (0.044, 0.046, 0.048)


HUGE = 10**400
DAMAGE = {
    "job": [5, None, ["1234"]],
    "schedule": [None, [], "tile", {"tile": -1}, {"tile": 1.5}, {"tile": True}, {"tile": HUGE}, {"\ud800": 1}],
    "verdict": ["kept", None, 3, ["keep"]],
    "why": [None, 3, []],
    "gain": [0.1, "abc", [0.1], [0.1] * 4, ["0.1"] * 3, [0.2, 0.1, 0.3], [0.1, None, 0.3], [math.nan] * 3, [True] * 3,
             [0, 0, math.inf], [-math.inf, 0, 0], [-HUGE] * 3, [-0.1] * 3, [1.5] * 3, None, {"0": 1, "1": 2, "2": 3}],
    "rounds": [-1, None, "20", math.inf, math.nan, HUGE, True],
    "trial": [-1, "1", HUGE, None],
    "at": [-1, "2.0", math.inf, math.nan, 1e300, HUGE, None, True],
    "took": [-1, "2.0", math.inf, math.nan, HUGE],
    "regime": [None, [["threads", 2]], "x", 3],
    "seconds": [None, [["a", 2]], {"case": 3}, {"case": "12"}, {"case": [-1]}, {"case": [math.nan]}, {"case": [HUGE]}],
}  # fmt: skip
"""By field of a trial that was kept."""

DAMAGED_RESULTS = {
    "best": DAMAGE["schedule"],
    "gain": [gain for gain in DAMAGE["gain"] if gain != [-0.1] * 3],
    "kept": [None, 1, "yes"],
    "why": DAMAGE["why"],
    "measured": [
        None, [], "x", {"over_limit": HUGE}, {"over_limit": math.inf}, {"over_limit": None}, {"over_limit": -1},
        {"machines": ["a", 1]}, {"machines": 3}, {"machines": {"a": "fast"}}, {"machines": {"a": [1]}},
    ],
    "error": [None, 3, ["it crashed"]],
}  # fmt: skip


def test_a_line_with_a_field_that_no_search_wrote_is_passed_over(tmp_path):
    """Numbers that are not finite, or beyond what searches take; other types; and losses of losses without end."""
    first, _, kept, *_, result = lines()
    for field, values in {**DAMAGE, "incumbent": DAMAGE["schedule"]}.items():
        log = write(tmp_path / "log", [first, *({**kept, field: value} for value in values)])
        assert searches(log)[0].history.trials == [], field
    for field, values in DAMAGED_RESULTS.items():
        log = write(tmp_path / "log", [first, *({**result, field: value} for value in values)])
        assert searches(log)[0].result is None, field
        assert searches(log)[0].error == "the log has no result"
    lost = [
        {**kept, "verdict": DROP, "gain": [-1e9] * 3, "schedule": Schedule(tile=a).to_json(),
         "incumbent": Schedule(tile=a - 1).to_json()} for a in range(2, 60)
    ]  # fmt: skip
    [search] = searches(write(tmp_path / "log", [first, *lost]))
    assert 30 < len(search.history.trials) < len(lost)
    assert all(map(math.isfinite, search.history.gains.values()))
    for name in (3, None, "\ud800"):
        with pytest.raises(FqError, match="no searches"):
            searches(write(tmp_path / "log", [{**first, "name": name}]))


def test_what_is_no_log_is_said(tmp_path):
    old = write(tmp_path / "old", [{"kind": "trial", "trial": 1, "ratio": 0.9}])
    with pytest.raises(FqError, match="no searches that this version reads"):
        searches(old)
    with pytest.raises(FileNotFoundError):
        searches(tmp_path / "none")
    with pytest.raises(FqError, match="has no trials"):
        plot.plot_trials(write(tmp_path / "log", lines()[:1]), tmp_path / "p.png")


def test_a_picture_is_by_time_and_in_words(tmp_path, monkeypatch):
    figure = new_figure()
    monkeypatch.setattr(plot, "new_figure", lambda: figure)
    plot.plot_trials(write(tmp_path / "log", [*lines(), *lines("5678", "lanes float16 cache")]), tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[1:4] == b"PNG"
    [axes] = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == "rows float32 mid"
    assert "lanes float16 cache" in labels
    assert "1234" not in " ".join(labels)
    drawn = {}
    for line in axes.get_lines():
        if line.get_label().startswith("_"):
            drawn.setdefault(line.get_marker(), [list(map(float, values)) for values in line.get_data()])
    [best] = [line for line in axes.get_lines() if line.get_label() == "rows float32 mid"]
    times, gains = best.get_data()
    assert list(times) == sorted(times) == [0, 2, 5, 7, 8, 9]
    assert list(gains) == pytest.approx([0, 0, 5, 5, 5, 4.6])
    assert drawn["x"][0] == [2]
    assert drawn["v"] == [[7], [plot.LOWEST]]
    assert drawn["D"] == [[9], [pytest.approx(4.6)]]
    assert drawn["."] == [[5, 8], [pytest.approx(5), pytest.approx(100 * (1 - 0.95 * 0.99))]]
    assert "percent" in axes.get_ylabel() or "%" in axes.get_ylabel()
    figure.canvas.draw()
    assert sum(bool(tick.get_text()) for tick in axes.get_yticklabels()) > 3


def test_show_makes_table_and_picture_of_any_log(tmp_path, capsys):
    log = write(tmp_path / "log", [*lines(), *lines("5678", "lanes \x1b[2J cache")])
    assert cli.main(["tune", "--show", str(log), "--plot", str(tmp_path / "p.png")]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[1].split("  ")[0] == "rows float32 mid"
    assert "4.6 % (4.4 to 4.8)" in said.splitlines()[1]
    assert "no: gains less than 10%" in said
    assert "rows 64" in said
    assert "10 trials of 2 searches" in said
    assert "\x1b" not in said
    assert (tmp_path / "p.png").stat().st_size > 1000
    begun, *_, ended = lines("9")
    write(log, [begun, {"kind": "result", "job": "9", "error": "it crashed"}, *lines("8", "lanes")[:-1]])
    assert cli.main(["tune", "--show", str(log)]) == 0
    unfinished = capsys.readouterr().out.splitlines()
    assert "no: it crashed" in unfinished[1]
    assert "no: the log has no result" in unfinished[2]
    write(log, [begun, ended])
    assert cli.main(["tune", "--show", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["best"]["rows"] == 64
    for bad in (["--show", str(tmp_path / "none")], ["--show", str(log), "--all"]):
        assert cli.main(["tune", *bad]) != 0
