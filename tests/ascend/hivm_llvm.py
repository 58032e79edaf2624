"""Executes the LLVM IR that hivmc writes, linked with the vendor's library bitcode, by LLVM's JIT.

The control flow, the scalar arithmetic and every address come from the vendor's code, translated for this CPU.  Its
intrinsics, and its loads and stores in the unified buffer and in tensors, are calls of a :class:`hivm_device.Device`.
"""

from __future__ import annotations

import ctypes
import itertools
import re
from collections.abc import Sequence

import llvmlite.binding as llvm
import numpy as np
from hivm_device import Device
from pipe_order import Event

_DEFINITION = re.compile(r"^define[^\n]*?@\"?([\w.$]+)\"?\(.*?^}\n", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"@\"?([\w.$]+)")
_BITS = {"half": "i16", "float": "i32"}
_TYPES = {"half": "f16", "float": "f32"}
_CALL = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 7)


def plain(text: str) -> str:
    """IR without what belongs to the device's own backend: attributes, metadata, comdats, the triple and comments."""
    text = re.sub(r"^(attributes #|!|target |source_filename|\$).*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"(,| ) ?![\w.]+ !\d+", "", text)
    return re.sub(r"( #\d+\b| comdat\b|^;.*\n| dso_local\b| ;.*$)", "", text, flags=re.MULTILINE)


class Library:
    """The functions of the vendor's library, as text.

    Parameters
    ----------
    text : str
        What LLVM prints of the bitcode, :func:`plain`.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: dict[str, int] = {}
        self._lines: dict[str, str] = {}
        self._types: dict[str, str] = {}
        # Of 10,000 functions some 300 are reached: of the others it is enough where they begin.
        for found in re.finditer(r"^(define|declare)[^@\n]*@([\w.$]+)|^@([\w.$]+)|^(%\S+) = type", text, re.MULTILINE):
            kind, function, constant, type_ = found.groups()
            if kind == "define":
                self._starts[function] = found.start()
                continue
            line = text[found.start() : text.index("\n", found.start())]
            if type_:
                self._types[type_] = line
            else:
                self._lines[function or constant] = line

    def _part(self, name: str) -> str | None:
        if (start := self._starts.get(name)) is not None:
            return self._text[start : self._text.index("\n}\n", start) + 3]
        return self._lines.get(name)

    def linked(self, module: str) -> str:
        """A module with what it reaches of the library."""
        defined = {found[1] for found in _DEFINITION.finditer(module)}
        parts, seen, open_ = [], set(defined), _NAME.findall(module)
        for name in open_:  # which grows
            if name in seen:
                continue
            seen.add(name)
            part = self._part(name)
            if part is None:
                continue  # declared by the module itself
            parts.append(part)
            open_ += _NAME.findall(part)
        body = "\n".join(parts)
        used = set(re.findall(r"%[\w.$\"]+", body))
        types, more = {}, used & self._types.keys()
        while more:
            name = more.pop()
            types[name] = self._types[name]
            more |= (set(re.findall(r"%[\w.$\"]+", self._types[name])) & self._types.keys()) - types.keys()
        # What a linked function declares for the module is no longer a declaration.
        module = re.sub(
            r"^declare.*?@([\w.$]+)\(.*\n", lambda m: "" if m[1] in seen - defined else m[0], module, flags=re.MULTILINE
        )
        return "\n".join([*types.values(), module, body, ""])


def instrumented(text: str) -> tuple[str, list[str], list[str]]:
    """Make calls of the host out of intrinsics and of what touches a memory of the device.

    Returns
    -------
    str
        The module.
    list of str
        The operation of each number that calls begin with.
    list of str
        The line of each site, in order.
    """
    operations: dict[str, int] = {}
    wrappers: dict[str, str] = {}
    sites: list[str] = []

    def wrapper(name: str, result: str, types: Sequence[str]) -> str:
        number = operations.setdefault(name, len(operations))
        lines, passed = [], []
        for i, kind in enumerate(types):
            wide, value = kind, f"%{i}"
            if kind.startswith("ptr"):
                lines.append(f"  %a{i} = ptrtoint {kind} {value} to i64")
                wide, value = "i64", f"%a{i}"
            if kind in _BITS:
                wide = _BITS[kind]
                lines.append(f"  %b{i} = bitcast {kind} {value} to {wide}")
                value = f"%b{i}"
            if wide != "i64":
                lines.append(f"  %c{i} = zext {wide} {value} to i64")
                value = f"%c{i}"
            passed.append(f"i64 {value}")
        passed += ["i64 0"] * (5 - len(types))
        lines.append(f"  %r = call i64 @hivm_host(i64 {number}, i64 %site, {', '.join(passed)})")
        if result == "void":
            lines.append("  ret void")
        else:
            value, narrow = "%r", _BITS.get(result, result)
            if narrow != "i64":
                lines.append(f"  %n = trunc i64 %r to {narrow}")
                value = "%n"
            if narrow != result:
                lines.append(f"  %f = bitcast {narrow} {value} to {result}")
                value = "%f"
            lines.append(f"  ret {result} {value}")
        parameters = ", ".join([*(f"{kind} %{i}" for i, kind in enumerate(types)), "i64 %site"])
        symbol = f"@host.{name}"
        wrappers[symbol] = "\n".join([f"define internal {result} {symbol}({parameters}) {{", *lines, "}"])
        return symbol

    for found in re.finditer(r"^declare ([\w ]+?) @llvm\.hivm\.([\w.]+)\((.*)\)", text, re.MULTILINE):
        types = [re.match(r"(ptr addrspace\(\d+\)|\w+)", kind)[0] for kind in found[3].split(", ") if kind]  # type: ignore[index]
        wrapper(found[2], found[1], types)
    text = re.sub(r"^declare .*@llvm\.hivm\..*\n", "", text, flags=re.MULTILINE)

    def at_site(line: str) -> int:
        sites.append(line.strip())
        return len(sites) - 1

    def call(found: re.Match[str]) -> str:
        comma = ", " if found[3] else ""
        return f"call {found[1]} @host.{found[2]}({found[3]}{comma}i64 {at_site(found[0])})"

    def load(found: re.Match[str]) -> str:
        result, kind, space, address = found.groups()
        name = f"LOAD.{_TYPES.get(kind, kind)}.{'gm' if space == '1' else 'ub'}"
        symbol = wrapper(name, kind, [f"ptr addrspace({space})"])
        return f"{result} = call {kind} {symbol}(ptr addrspace({space}) {address}, i64 {at_site(found[0])})"

    def store(found: re.Match[str]) -> str:
        kind, value, space, address = found.groups()
        name = f"STORE.{_TYPES.get(kind, kind)}.{'gm' if space == '1' else 'ub'}"
        symbol = wrapper(name, "void", [kind, f"ptr addrspace({space})"])
        where = f"ptr addrspace({space}) {address}"
        return f"call void {symbol}({kind} {value}, {where}, i64 {at_site(found[0])})"

    text = re.sub(r"(?:tail )?call (\w+) @llvm\.hivm\.([\w.]+)\((.*)\)$", call, text, flags=re.MULTILINE)
    text = re.sub(
        r"(%[\w.]+) = load (?:volatile )?(\w+), ptr addrspace\(([16])\) (.*?)(?:, align \d+)?$",
        load,
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(
        r"store (?:volatile )?(\w+) ([^,]+), ptr addrspace\(([16])\) (.*?)(?:, align \d+)?$",
        store,
        text,
        flags=re.MULTILINE,
    )
    left = re.search(
        r"^.*(@llvm\.hivm|(load|store) [^\n{]*, ptr addrspace\([16]\)|memcpy\.[^(]*p[16]\b).*$", text, re.MULTILINE
    )
    assert left is None, f"not translated: {left[0] if left else ''}"
    head = "declare i64 @hivm_host(i64, i64, i64, i64, i64, i64, i64)"
    return "\n".join([text, head, *wrappers.values()]), list(operations), sites


_COUNT = itertools.count()


class Kernel:
    """A kernel that hivmc lowered, ready to run.

    Parameters
    ----------
    text : str
        hivmc's LLVM IR.
    library : Library
    name : str
        Symbol of the kernel.
    """

    def __init__(self, text: str, library: Library, name: str = "fake_quant") -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        made, self.operations, self.sites = instrumented(library.linked(plain(text)))
        host = f"hivm_host_{next(_COUNT)}"
        triple = f'target triple = "{llvm.get_process_triple()}"\n'
        module = llvm.parse_assembly(triple + made.replace("@hivm_host(", f"@{host}("))
        module.verify()
        features = llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_triple(llvm.get_process_triple())
        machine = target.create_target_machine(llvm.get_host_cpu_name(), features, opt=0)
        self._callback = _CALL(self._called)
        llvm.add_symbol(host, ctypes.cast(self._callback, ctypes.c_void_p).value)
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        self._address = self._engine.get_function_address(name)

    def _called(self, operation: int, site: int, *operands: int) -> int:
        if self._error is None:
            try:
                name = self.operations[operation]
                return self._device.call(name, site, operands[: _arity(name)]) & 2**64 - 1
            except BaseException as error:  # an exception does not pass through the JIT's frames
                self._error = error
        return 0

    def __call__(self, *tensors: np.ndarray, blocks: int) -> tuple[Device, list[list[Event]]]:
        """Run all blocks, one after another.

        Returns
        -------
        Device
        list of list of Event
            What each block did.

        Raises
        ------
        hivm_device.Violation
        """
        self._device, self._error = Device(tensors), None
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * len(tensors))(self._address)
        traces = []
        for block in range(blocks):
            self._device.start(block)
            function(*self._device.addresses)
            if self._error is not None:
                raise self._error
            traces.append(self._device.finish())
        return self._device, traces


_ARITIES = {"LOAD": 1, "STORE": 2, "GET": 0, "SET.CTRL": 1, "SET.FLAG": 3, "SET.CMPMASK": 1, "SET.MOV": 1, "WAIT": 3}
_ARITIES |= {"BARRIER": 1, "DCCI": 2, "TRAP": 0, "SBITSET0": 2, "SBITSET1": 2, "MOVEMASK": 2, "MOVEV": 3, "VCONV": 3}
_ARITIES |= {"VBRCB": 3, "VCOPY": 3}


def _arity(name: str) -> int:
    head, _, rest = name.partition(".")
    return _ARITIES.get(head, _ARITIES.get(f"{head}.{rest.split('.')[0]}", 4))
