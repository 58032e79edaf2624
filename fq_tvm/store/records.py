"""Tuned schedules on disk, and which one applies.

A record file is a readable JSON file for one CPU.  The user's lie in the platform's data folder, the library's in
``schedules/`` of a checkout and inside the wheel.  Knows files and schedules; does not know TVM.  Files are read when
a schedule is first looked up, once for each CPU.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from ..environment import data_dir
from ..errors import FqError
from ..schedule import Schedule
from ..spec import FakeQuantSpec
from ..target import LEVELS, Target
from .cache import digest
from .files import check, replacing

FORMATS = (1, 2)
"""Versions of the format of record files; a file of another is skipped.  2 has records of single shapes, which a reader
of 1 would take for those of a size class, and knobs that such a reader does not know; a file of neither is written as
1."""

NEW_KNOBS = ("prefetch", "static")
"""Those of format 2, which are left out where they are 0."""

OPERATOR = "fake_quant"
"""The operator of records that name none: files that were written before records did."""

SIZE_CLASSES = {"cache": 2**20, "mid": 2**25, "memory": math.inf}
"""The most bytes moved (x, out and mask) by tensors of each class: second-level caches, last-level ones, the rest."""

MOST_ROWS = 64
"""The most rows of a record: lanes unroll them, and a kernel of some hundred takes minutes to compile."""


@dataclass(frozen=True)
class Record:
    """A schedule and what it is for.

    Parameters
    ----------
    match : tuple of pairs of str and str or bool
        Fields of :class:`~fq_tvm.spec.FakeQuantSpec` that a kernel has to agree with.
    size_class : str
        Of :data:`SIZE_CLASSES`.
    schedule : Schedule
        How such kernels run.
    measured : dict
        What was measured, for readers: the time over that of the default schedule, and over the limit of a copy.
    operator : str
        Of the family whose kernels these are, see :attr:`FakeQuantSpec.operator`.
    extents : tuple of int
        Of the loops of the one shape that it is for, see :attr:`fq_tvm.layout.Layout.extents`; empty where it is for
        all of the size class.
    """

    match: tuple[tuple[str, str | bool], ...]
    size_class: str
    schedule: Schedule
    measured: Mapping[str, Any] = field(default_factory=dict, compare=False)
    operator: str = OPERATOR
    extents: tuple[int, ...] = ()

    @property
    def subject(self) -> tuple[str, tuple[tuple[str, str | bool], ...], str, tuple[int, ...]]:
        """What it is for; a file has one record of each."""
        return self.operator, self.match, self.size_class, self.extents

    def is_for(self, spec: FakeQuantSpec) -> bool:
        """Whether this is for a kernel, on tensors of some size."""
        return self.operator == spec.operator and all(getattr(spec, name) == value for name, value in self.match)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that :func:`json.dumps` takes."""
        shape = {"extents": list(self.extents)} if self.extents else {}
        knobs = {name: value for name, value in self.schedule.to_json().items() if value or name not in NEW_KNOBS}
        return {
            "operator": self.operator,
            "match": dict(self.match),
            "size_class": self.size_class,
            **shape,
            "schedule": knobs,
            "measured": dict(self.measured),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        """Make a record of what :meth:`to_json` returned.

        Raises
        ------
        FqError
            If a field of the specification, a knob or a size class is unknown, or a knob or an extent is beyond its
            bounds.
        """
        operator, known = value.get("operator", OPERATOR), {f.name for f in fields(FakeQuantSpec)}
        if not isinstance(operator, str):
            raise FqError(f"operator is {operator!r}; expected the name of one")
        if operator == OPERATOR and (unknown := sorted(set(value["match"]) - known)):
            raise FqError(f"unknown field of FakeQuantSpec in match: {', '.join(unknown)}")
        if value["size_class"] not in SIZE_CLASSES:
            raise FqError(f"size_class is {value['size_class']!r}; expected one of {', '.join(SIZE_CLASSES)}")
        measured = value.get("measured", {})
        if not isinstance(measured, Mapping) or not all(isinstance(v, (str, bool)) for v in value["match"].values()):
            raise FqError(
                f"match is {value['match']!r}, measured is {measured!r}; "
                "expected texts by name, or booleans, and values by name"
            )
        match, schedule = tuple(sorted(value["match"].items())), Schedule.from_json(value["schedule"])
        if schedule.rows > MOST_ROWS:
            raise FqError(f"Schedule.rows is {schedule.rows}; expected at most {MOST_ROWS} in a record")
        extents = tuple(value.get("extents", ()))
        if not all(type(extent) is int and 0 < extent < 2**63 for extent in extents):
            raise FqError(f"extents are {value['extents']!r}; expected positive integers")
        if schedule.static and not extents:
            raise FqError(
                "Schedule.static is 1 in a record without extents; expected those of the shape that it is for"
            )
        return cls(match, value["size_class"], schedule, measured, operator, extents)


@dataclass(frozen=True)
class RecordFile:
    """What tuning found for one CPU.

    Parameters
    ----------
    cpu : str
        LLVM's name of it, or of a feature level.
    records : tuple of Record
        Of two that apply, one of the shape counts, then the one that matches more fields, then the first.
    threads : int
        How many were used for measuring.
    rows_min_inner : int, optional
        Shortest inner run that is taken by *rows*, where this CPU has another boundary.
    tuned : dict
        How the file came about: versions and settings, for readers.
    """

    cpu: str
    records: tuple[Record, ...]
    threads: int = 1
    rows_min_inner: int | None = None
    tuned: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def find(self, spec: FakeQuantSpec, size_class: str) -> Record | None:
        """Return the record that applies to tensors of a size class."""
        found = [r for r in self.records if not r.extents and r.size_class == size_class and r.is_for(spec)]
        return max(found, key=lambda record: len(record.match), default=None)

    def shapes(self, spec: FakeQuantSpec) -> dict[tuple[int, ...], Record]:
        """Return the records that apply to single shapes, by the extents of their loops."""
        found: dict[tuple[int, ...], Record] = {}
        for record in self.records:
            if record.extents and record.is_for(spec):
                best = found.get(record.extents)
                if best is None or len(record.match) > len(best.match):
                    found[record.extents] = record
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that :func:`json.dumps` takes."""
        boundary = {} if self.rows_min_inner is None else {"rows_min_inner": self.rows_min_inner}
        new = any(r.extents or any(getattr(r.schedule, name) for name in NEW_KNOBS) for r in self.records)
        return {
            "format": FORMATS[new],
            "cpu": self.cpu,
            "threads": self.threads,
            "tuned": dict(self.tuned),
            **boundary,
            "records": [record.to_json() for record in self.records],
        }

    @classmethod
    def from_json(cls, value: Any) -> RecordFile:
        """Make a file's contents of what :meth:`to_json` returned.

        Raises
        ------
        FqError
            If it is of another format, or damaged.
        """
        try:
            if value["format"] not in FORMATS:
                raise FqError(f"format is {value['format']!r}; this version reads {' and '.join(map(str, FORMATS))}")
            value = dict(value)
            if "sha256" in value and value.pop("sha256") != digest(value):
                raise FqError("it is damaged, or was edited by hand; take the sha256 out if you did, or tune again")
            if unknown := sorted(value.keys() - {"format", "cpu", "threads", "tuned", "rows_min_inner", "records"}):
                raise FqError(f"unknown field: {', '.join(unknown)}")
            records = tuple(map(Record.from_json, value["records"]))
            cpu, threads, boundary = value["cpu"], value["threads"], value.get("rows_min_inner")
            for name, number in (("threads", threads), ("rows_min_inner", boundary)):
                if number is not None and (type(number) is not int or not 0 < number < 2**31):
                    raise FqError(f"{name} is {number!r}; expected an integer from 1 to {2**31 - 1}")
            if not isinstance(cpu, str):
                raise FqError(f"cpu is {cpu!r}; expected LLVM's name of one")
            return cls(cpu, records, threads, boundary, dict(value.get("tuned", {})))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise FqError(f"no record file: {type(error).__name__} {error}") from error


def read(path: str | Path) -> RecordFile:
    """Read a record file.

    Raises
    ------
    FqError
        If it is of another format, damaged, or for another CPU than its name says.
    OSError
        If it cannot be read.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, or nested without end
        raise FqError(f"{path} is no JSON: {error}") from error
    try:
        return RecordFile.from_json(value)
    except FqError as error:
        raise FqError(f"{path}: {error}") from error


def write(path: str | Path, content: RecordFile) -> None:
    """Write a record file, with a checksum; a reader sees the old one or the new one.

    A link is followed, and a device or a pipe written to.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    value = content.to_json()
    with replacing(path) as file:
        file.write(_readable({**value, "sha256": digest(value)}))


def _readable(value: Mapping[str, Any]) -> str:
    """JSON with one line a record, so that a change of one is a change of one line, and of the checksum."""
    first = [name for name in ("format", "sha256") if name in value]
    lines = ["  " + ", ".join(f"{json.dumps(name)}: {json.dumps(value[name])}" for name in first)]
    others = ((name, item) for name, item in value.items() if name not in (*first, "records"))
    lines += [f"  {json.dumps(name)}: {json.dumps(item)}" for name, item in others]
    records = ",\n".join(f"    {json.dumps(record)}" for record in value["records"])
    lines.append(f'  "records": [\n{records}\n  ]' if records else '  "records": []')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def merge(old: RecordFile | None, new: RecordFile, results: Iterable[Record] = ()) -> RecordFile:
    """Put new records in place of old ones for the same kernels and sizes, and keep the rest.

    Parameters
    ----------
    old, new : RecordFile
        What was there, if anything, and what was found.
    results : iterable of Record
        Everything that was measured, perhaps with the result that the default schedule does: old records for the same
        go, too.

    Returns
    -------
    RecordFile
        The new one, where the old one is of another CPU.
    """
    if old is None or old.cpu != new.cpu:
        return new
    measured = {record.subject for record in (*new.records, *results)}
    kept = [record for record in old.records if record.subject not in measured]
    order = list(SIZE_CLASSES)
    records = sorted((*kept, *new.records), key=lambda r: (r.operator, r.match, order.index(r.size_class), r.extents))
    boundary = old.rows_min_inner if new.rows_min_inner is None else new.rows_min_inner
    return RecordFile(new.cpu, tuple(records), new.threads, boundary, new.tuned)


def size_class(moved: float) -> str:
    """Return the class of tensors of which so many bytes move: x, out and mask."""
    return next(name for name, most in SIZE_CLASSES.items() if moved <= most)


def size_class_of(spec: FakeQuantSpec, elements: int) -> str:
    """Return the class of tensors of so many elements."""
    return size_class(elements * spec.element_bytes)


def user_folder() -> Path | None:
    """Folder of the schedules that this user tuned; None if there is no home."""
    folder = data_dir()
    return None if folder is None else folder / "schedules"


def shipped_folder() -> Path | None:
    """Folder of the schedules that come with the library: inside the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return next((f for f in (package / "schedules", package.parent / "schedules") if f.is_dir()), None)


@dataclass(frozen=True)
class Found:
    """A record file that applies to a CPU.

    Parameters
    ----------
    path : Path
        Where it lies.
    content : RecordFile
        What it holds.
    reason : str
        Why it applies.
    """

    path: Path
    content: RecordFile
    reason: str


def candidates(target: Target, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return which record files could serve a CPU, the best first.

    Parameters
    ----------
    target : Target
        The CPU.
    names : iterable of str
        The CPUs that there are records of.

    Returns
    -------
    list of (str, str)
        Name and reason.  The CPU itself is always the first; relatives are its family, nearest generation first, and
        the feature levels that it fills.
    """
    found = {target.cpu: "this CPU"}
    stem, number = _family(target.cpu)
    if number is not None and target.cpu not in LEVELS:
        relatives = [
            (abs(other - number), name) for name in names for s, other in [_family(name)] if s == stem and other
        ]
        for _, name in sorted(relatives):
            found.setdefault(name, f"of {target.cpu}'s family")
    levels = list(LEVELS)
    for name in levels[levels.index(target.level) :] if target.level else []:
        found.setdefault(name, f"{target.cpu} has the features of {name}")
    return list(found.items())


def _family(cpu: str) -> tuple[str, int | None]:
    """Split ``znver4`` into its family and generation."""
    parts = re.fullmatch(r"(.*\D)(\d+)", cpu)
    return (parts[1], int(parts[2])) if parts else (cpu, None)


@cache
def applicable(target: Target) -> tuple[Found, ...]:
    """Return the record files that apply to a CPU, the best first; the user's before the library's of the same CPU.

    A file that cannot be used costs one warning, never an error.
    """
    folders = [(f, whose) for f, whose in ((user_folder(), "yours"), (shipped_folder(), "shipped")) if f is not None]
    names = sorted({path.stem for folder, _ in folders for path in folder.glob("*.json")})
    found = []
    for name, reason in candidates(target, names):
        for folder, whose in folders:
            path = folder / f"{name}.json"
            # what is shipped is trusted as the code is that lies beside it
            if (content := _try_to_read(path, name, trusted=whose == "shipped")) is not None:
                found.append(Found(path, content, f"{reason}, {whose}"))
    return tuple(found)


def _try_to_read(path: Path, cpu: str, trusted: bool) -> RecordFile | None:
    try:
        if not trusted:
            check(path, strict=False)
        content = read(path)
        if content.cpu != cpu:
            raise FqError(f"{path} is for {content.cpu}; expected {cpu}, as its name says")
    except FileNotFoundError:
        return None
    except (FqError, OSError) as error:
        warnings.warn(f"a file of tuned schedules is skipped: {error}", RuntimeWarning, stacklevel=2)
        return None
    return content


def lookup(
    spec: FakeQuantSpec, target: Target, size_class: str = "memory", extents: tuple[int, ...] = ()
) -> Schedule | None:
    """Return the tuned schedule of a kernel, of the first applicable file that has one; None where none has.

    A record of the shape goes before all those of its size class.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.
    target : Target
        The CPU.
    size_class : str
        Of :data:`SIZE_CLASSES`.
    extents : tuple of int
        Of the loops, see :attr:`fq_tvm.layout.Layout.extents`; empty where no shape is known.

    Returns
    -------
    Schedule or None
    """
    return shapes(spec, target).get(extents) or _lookup(spec, target, size_class)


@cache
def shapes(spec: FakeQuantSpec, target: Target) -> Mapping[tuple[int, ...], Schedule]:
    """Return the schedules that were tuned for single shapes of a kernel, by the extents of their loops."""
    best_last = [found.content.shapes(spec) for found in reversed(applicable(target))]
    return {extents: record.schedule for file in best_last for extents, record in file.items()}


@cache
def _lookup(spec: FakeQuantSpec, target: Target, size_class: str) -> Schedule | None:
    for found in applicable(target):
        if (record := found.content.find(spec, size_class)) is not None:
            return record.schedule
    return None


@cache
def rows_min_inner(target: Target) -> int | None:
    """Return the class boundary that tuning found for a CPU; None where nobody measured it."""
    boundaries = (found.content.rows_min_inner for found in applicable(target))
    return next((b for b in boundaries if b is not None), None)


_forgotten: list[Callable[[], object]] = []


def when_forgotten(callback: Callable[[], object]) -> None:
    """Have :func:`forget` call something as well: whoever remembers what a record decided has to forget it, too."""
    _forgotten.append(callback)


def forget() -> None:
    """Read record files anew at the next look-up, and tell whoever asked by :func:`when_forgotten`."""
    for function in (applicable, shapes, _lookup, rows_min_inner):
        function.cache_clear()
    for callback in _forgotten:
        callback()
