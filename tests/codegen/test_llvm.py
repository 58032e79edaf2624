"""What LLVM says of every CPU that it knows, and what it would not survive."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from tvm.target import Target as TvmTarget
from tvm.target import codegen

from fq_tvm import FqError
from fq_tvm.codegen.llvm import resolve

WITHOUT_64_BITS = (
    "i386",
    "i686",
    "pentium",
    "pentium4",
    "prescott",
    "athlon",
    "lakemont",
    "yonah",
    "c3",
    "k6",
    "geode",
)

BUILD = """
import sys, fq_tvm
from fq_tvm.codegen.build import build
from fq_tvm.codegen.llvm import resolve
from fq_tvm.schedule import Schedule
for name in sys.argv[1:]:
    try:
        build(fq_tvm.FakeQuantSpec("rows"), Schedule(), resolve(name))
    except fq_tvm.FqError as error:
        print(name, "refused")
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUs of x86")
def test_every_name_is_resolved_or_refused_for_its_lack_of_64_bits():
    refused = {}
    for name in map(str, codegen.llvm_get_cpu_archlist(TvmTarget({"kind": "llvm"}))):
        try:
            assert "64bit" in resolve(name).features
        except FqError as error:
            refused[name] = str(error)
    assert all("64-bit" in message for message in refused.values())
    assert refused.keys() >= set(WITHOUT_64_BITS)
    assert not refused.keys() & {"generic", "x86-64", "nocona", "k8", "core2", "atom", "opteron", "znver4"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUs of x86")
def test_the_oldest_names_end_no_process():
    names = ["nocona", "generic", *WITHOUT_64_BITS]
    ran = subprocess.run([sys.executable, "-c", BUILD, *names], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-500:]
    assert ran.stdout.split("\n")[:-1] == [f"{name} refused" for name in WITHOUT_64_BITS]
