"""How fast kernels are: contenders that take turns in one run, and what their times say.

In the order of use: ``timing`` (of any calls), ``cases``, ``contenders``, ``peers``, ``result``, ``plot``.
"""

from __future__ import annotations

from .cases import CASES, Case, find_cases
from .contenders import copy
from .timing import compare, interleave, quiet_threads

__all__ = ["CASES", "Case", "compare", "copy", "find_cases", "interleave", "quiet_threads"]
