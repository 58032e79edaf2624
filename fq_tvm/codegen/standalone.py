"""Object code that a linker takes into any program: symbols of its own, and nothing of TVM's asked for.

A kernel's object gives its functions the same names as every other kernel's, reports errors through a library of TVM
and launches its tasks through a pointer that another one fills, as the loader of :mod:`fq_tvm.launch.runtime` wants it.
Here the text of the LLVM IR, which is the same otherwise, says something else in these places.
"""

from __future__ import annotations

import re

from ..errors import BuildError

_FUNCTION = re.compile(r"@__tvm_ffi_(\w+)\(")
_EXPORTED = re.compile(r"^define (?:weak |linkonce )?dllexport ", re.MULTILINE)
_LAUNCHER = re.compile(r"^@__TVMBackendParallelLaunch = .* global ptr null.*$", re.MULTILINE)
_ERROR = re.compile(r"^declare void @TVMFFIErrorSetRaisedFromCStrParts\(.*$", re.MULTILINE)
_WEAK = re.compile(r"^define weak (?:dso_local )?", re.MULTILINE)
_FOREIGN = re.compile(r"^declare [^\n]*@(?!llvm\.)([\w.]+)|@(__TVM\w+)|@(__tvm_ffi_\w+)", re.MULTILINE)


def stand_alone(ll: str, prefix: str, launcher: str) -> str:
    """Give the functions of a kernel names of their own, and let them need no library of TVM.

    Parameters
    ----------
    ll : str
        What :func:`fq_tvm.codegen.llvm.translate` returned.
    prefix : str
        Begins the name of each function, with an underscore before the contract's name of it.
    launcher : str
        Name of a variable that whoever links the object defines, ``int (*)(int (*task)(int number, struct {void *sync;
        int tasks;} *, void *closure), void *closure, int tasks)``: runs the tasks, as many as it likes.

    Returns
    -------
    str
        The names are hidden: they can be linked to, and no shared library shows them.  A failed check of the arguments
        returns -1 and leaves no message.

    Raises
    ------
    BuildError
        If the code asks for anything else from outside.
    """
    ll = _FUNCTION.sub(rf"@{prefix}_\1(", ll)
    ll = _EXPORTED.sub("define hidden ", ll)
    # The conversions of float16, for CPUs without: weak symbols would replace those of the program's own compiler.
    ll = _WEAK.sub("define internal ", ll)
    ll = _LAUNCHER.sub(f"@{launcher} = external hidden local_unnamed_addr global ptr, align 8", ll)
    ll = ll.replace("@__TVMBackendParallelLaunch", f"@{launcher}")
    ll = _ERROR.sub("define internal void @no_message(ptr %kind, ptr %parts, i32 %count) {\n  ret void\n}", ll)
    ll = ll.replace("@TVMFFIErrorSetRaisedFromCStrParts(", "@no_message(")
    if foreign := sorted({next(filter(None, match)) for match in _FOREIGN.findall(ll)}):
        raise BuildError(f"{prefix} needs {', '.join(foreign)}, which programs without TVM do not have")
    return ll
