"""A double of CANN's TVM fork, of its documented contract alone.

Checks ranks, shapes, dtypes and arities of every call, records them, and writes what was recorded as JSON where the
fork would write an object.  It says nothing about what the real fork or the hardware does.
"""

__version__ = "double"
