"""The command line ``fq-tvm``: the only part of the library that prints.

``commands`` has the table; a command is one function, in the file of its family.  Modules that import numpy, TVM or
torch are imported by the command that needs them.
"""

from __future__ import annotations

from .commands import main

__all__ = ["main"]
