"""Targets of both architectures: names, what a machine lacks, and libraries for machines that have no compiler."""

from __future__ import annotations

import dataclasses
import json
import platform

import numpy as np
import pytest

import fq_tvm
from fq_tvm import BuildError, FakeQuantSpec, FqError, Target, find_target, get_kernel
from fq_tvm import target as targets
from fq_tvm.codegen.llvm import emit, resolve
from fq_tvm.launch import native, registry, runtime
from fq_tvm.store.cache import Store

AARCH64 = platform.machine() == "aarch64"
FOREIGN = "x86-64-v3" if AARCH64 else "tsv110"
"""A CPU of the other architecture."""

KUNPENG = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma dcpop asimddp asimdfhm"
)
CORTEX_A72 = "fp asimd evtstrm crc32 cpuid"  # of a Raspberry Pi 4: no cryptography
V1 = f"{KUNPENG} sha3 sm3 sm4 sve lrcpc dit uscat ilrcpc flagm ssbs paca pacg dcpodp svei8mm svebf16 i8mm bf16 dgh rng"
CPUS = {
    "tsv110": ("0x48", "0xd01", KUNPENG),
    "cortex-a72": ("0x41", "0xd08", CORTEX_A72),
    "neoverse-v1": ("0x41", "0xd40", V1),
}


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Makes this process take its machine for another one of aarch64, by what the system says."""

    def machine(implementer: str, part: str, features: str) -> None:
        path = tmp_path / "cpuinfo"
        path.write_text(
            f"processor\t: 0\nFeatures\t: {features}\nCPU implementer\t: {implementer}\nCPU architecture: 8\n"
            f"CPU part\t: {part}\n\nprocessor\t: 1\nFeatures\t: none\n"
        )
        monkeypatch.setattr(targets, "CPUINFO", str(path))
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        monkeypatch.setattr(registry, "_targets", {})

    return machine


@pytest.fixture
def no_compiler(monkeypatch):
    """Fails where the compiler is asked for."""

    def asked(module: str) -> None:
        raise AssertionError(f"the compiler is imported for {module}")

    monkeypatch.setattr(registry, "compiler", asked)
    monkeypatch.setattr(native, "compiler", asked)


def test_names_of_both_architectures():
    kunpeng = find_target("kunpeng-920")
    assert kunpeng == find_target("tsv110")
    assert (kunpeng.cpu, kunpeng.architecture) == ("tsv110", "aarch64")
    assert {"neon", "fullfp16", "dotprod"} <= set(kunpeng.features)
    portable = find_target("armv8-a")
    assert (portable.cpu, portable.llvm_cpu, portable.architecture) == ("armv8-a", "generic", "aarch64")
    assert "neon" in portable.features
    assert not {"fullfp16", "sve", "lse"} & set(portable.features)
    assert find_target("x86-64-v3").architecture == "x86_64"
    assert find_target("host").architecture == platform.machine()
    assert resolve("generic").architecture == platform.machine()
    with pytest.raises(FqError, match=r"no CPU 'kunpeng-930'; .*kunpeng-920, armv8-a, .*znver4.*tsv110"):
        find_target("kunpeng-930")


def test_architecture_is_a_part_of_what_a_target_is():
    target = find_target(FOREIGN)
    assert target.missing == (target.architecture,)
    assert target.identity()["architecture"] == target.architecture
    assert target.to_tvm()["mtriple"] == f"{target.architecture}-linux-gnu"
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target
    same_name = dataclasses.replace(target, architecture=platform.machine())
    assert same_name.identity() != target.identity()


@pytest.mark.parametrize("cpu", CPUS)
def test_a_cpu_is_known_by_implementer_and_part(pretend, cpu):
    named = find_target(cpu).everywhere()
    assert named is not None
    pretend(*CPUS[cpu])
    assert targets.this_cpu() == cpu
    assert named.here(as_host=True) == named.here(as_host=False) == named, "it has what its name implies"


def test_what_a_machine_lacks(pretend):
    """Half precision above all, of which LLVM's own list of a host's features says nothing."""
    kunpeng, v1, portable = (find_target(name).everywhere() for name in ("tsv110", "neoverse-v1", "armv8-a"))
    pretend(*CPUS["cortex-a72"])
    assert kunpeng.here(as_host=False).missing == (
        "complxnum",
        "dotprod",
        "fp16fml",
        "fullfp16",
        "jsconv",
        "lse",
        "rdm",
    )
    assert portable.here(as_host=False).missing == ()
    pretend(*CPUS["tsv110"])
    assert "sve" in v1.here(as_host=False).missing
    pretend("0x41", "0xd40", V1.replace(" sve ", " "))
    assert v1.here(as_host=False).missing == ("sve",)
    assert v1.here(as_host=True) is None, "LLVM has to say what goes with it"


def test_hidden_features_are_what_the_host_goes_without(monkeypatch):
    """As it is on a virtual machine; on x86-64 tests/launch/test_kernel.py looks at what is hidden here."""
    host = resolve("host")
    assert not set(host.disabled) & set(host.features)
    assert (host.everywhere() is None) == bool(host.disabled)


def test_a_name_of_x86_needs_what_the_system_shows(monkeypatch, tmp_path):
    v3 = dataclasses.replace(find_target("x86-64-v3"), missing=())
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(targets, "CPUINFO", str(path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    words = ["sse", "sse2", "pni", "ssse3", "sse4_1", "sse4_2", "popcnt", "avx", "avx2", "f16c", "fma", "bmi1", "bmi2"]
    words += ["abm", "movbe"]
    path.write_text(f"flags : {' '.join(words)}\n\n")
    assert v3.here(as_host=False) == v3
    for word in words:
        path.write_text(f"flags : {' '.join(w for w in words if w != word)}\n\n")
        assert v3.here(as_host=False) is None, f"only LLVM can tell without {word}"
    assert v3.here(as_host=True) is None


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """One kernel each for a Kunpeng and for any CPU of aarch64, as `fq-tvm build --target` builds them."""
    folder = tmp_path_factory.mktemp("library")
    for name in ("kunpeng-920", "armv8-a"):
        fq_tvm.build_library(folder, [FakeQuantSpec("lanes")], find_target(name))
    return folder


def test_a_library_serves_machines_without_a_compiler(library, pretend, no_compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("FQ_TVM_ARTIFACTS_DIR", str(library))
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("FQ_TVM_REQUIRE_CACHE", "1")
    monkeypatch.setattr(registry, "_kernels", {})
    native._entry.cache_clear()
    pretend(*CPUS["tsv110"])
    for name in ("host", "tsv110", "kunpeng-920", "armv8-a", "generic"):
        target = find_target(name)
        assert not target.missing, name
        path = get_kernel(FakeQuantSpec("lanes"), target).path
        assert path.is_relative_to(library)
    assert native.entry().path.is_relative_to(library), "what runs beside kernels lies there, too"
    for file in native.entry().files:
        assert int.from_bytes(native.entry().files[file][18:20], "little") == 183
    native._entry.cache_clear()


def test_a_machine_that_is_not_up_to_the_code_is_told_so(library, pretend, no_compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("FQ_TVM_ARTIFACTS_DIR", str(library))
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(registry, "_kernels", {})
    pretend(*CPUS["cortex-a72"])
    kernel = get_kernel(FakeQuantSpec("lanes"), find_target("kunpeng-920"))
    with pytest.raises(BuildError, match=r"cannot run code for tsv110: it lacks complxnum, .*fullfp16.*FQ_TVM_TARGET"):
        kernel.function("run_serial")


def test_code_of_another_architecture_is_not_loaded(monkeypatch):
    kernel = get_kernel(FakeQuantSpec("lanes"), find_target(FOREIGN))
    code = kernel._files["kernel.o"]
    with pytest.raises(
        BuildError, match=rf"cannot run code for {FOREIGN}: that is a CPU of {kernel.target.architecture}"
    ):
        kernel.function("run_serial")
    # the same under the key of this machine: whoever mixed them up
    mixed = fq_tvm.Kernel(
        kernel.spec, kernel.schedule, find_target("host"), registry.store.Entry({}, "", kernel._files)
    )
    with pytest.raises(
        BuildError, match=rf"is for {kernel.target.architecture}, and this machine is {platform.machine()}"
    ):
        mixed.function("run_serial")
    other = "x86_64" if AARCH64 else "aarch64"
    assert runtime.ELF_MACHINES[other] == int.from_bytes(code[18:20], "little")
    monkeypatch.setattr(platform, "machine", lambda: other)
    runtime.check_architecture(code)
    own = emit(native._ir("attach", "aarch64" if AARCH64 else "x86_64"))[0]
    with pytest.raises(BuildError, match=f"this machine is {other}"):
        runtime.load(own)


def test_the_call_says_so_too(monkeypatch):
    monkeypatch.setenv("FQ_TVM_TARGET", FOREIGN)
    x, scale, zero_point = np.ones((4, 3), "f4"), np.ones(3, "f4"), np.zeros(3, "i4")
    with pytest.raises(BuildError, match=f"cannot run code for {FOREIGN}"):
        fq_tvm.fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, 1, -8, 7)


def test_notes_of_a_name_are_checked(tmp_path):
    folder = Store(tmp_path)
    for answer in (None, 7, {}, {"cpu": "tsv110", "features": []}):
        folder.remember(targets.question_of("tsv110"), answer)
        assert registry._recall(folder, "tsv110", None) is None
