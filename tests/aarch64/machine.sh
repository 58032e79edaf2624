#!/usr/bin/env bash
# An aarch64 machine in a folder, for qemu-user: a Python of Debian, wheels of PyPI, and the CPU of a Kunpeng 920.
#
#   machine.sh FOLDER PYTHON
#
# Needs apt and dpkg of Debian, and a Python of this machine with fq_tvm and pip; no root, and nothing of binfmt_misc.
# FOLDER/python runs the aarch64 Python; what it starts as sys.executable is aarch64 as well.  With WITHOUT_TORCH=1 it has
# no torch, which tvm_ffi imports where it can, in twelve seconds over there.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
python=$2
apt=$folder/apt
mkdir -p "$apt"/{state/lists/partial,cache/archives/partial} "$folder"/{qemu,root/proc,site,torch}

echo "== qemu"
if ! qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static); then
    apt-get -q -q update || true # for one's own machine, by its own lists, which may be old where one is not root
    (cd "$folder/qemu" && apt-get -q -q -o APT::Sandbox::User=root download qemu-user-static)
    dpkg-deb -x "$folder"/qemu/qemu-user-static_*.deb "$folder/qemu"
    qemu=$folder/qemu/usr/bin/qemu-aarch64-static
fi

echo "== Python of Debian for arm64"
: > "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main" \
    > "$apt/sources.list"
options=(
    -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
    -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::Etc::PreferencesParts=/dev/null -o APT::Architecture=arm64 -o APT::Architectures::=arm64
    -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Debug::NoLocking=1 -o Acquire::Languages=none
)
apt-get -q -q "${options[@]}" update
apt-get -q -q -y "${options[@]}" --download-only install python3.11 libstdc++6 libgomp1
for package in "$apt"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$folder/root"
done

echo "== wheels for aarch64"
wheels=(
    "$python" -m pip install --quiet --disable-pip-version-check --python-version 3.11 --only-binary=:all: --upgrade
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64
)
# What fq_tvm needs, in the versions of its pyproject.toml, and what its tests do.
mapfile -t needed < <("$python" -c '
import re, sys
from importlib.metadata import requires
print(*(re.split("[ ;]", r)[0] for r in requires("fq_tvm") if "extra" not in r), sep="\n")')
"${wheels[@]}" --target "$folder/site" "${needed[@]}" ml_dtypes pytest hypothesis safetensors
# Pip asks for what this machine would need beside a wheel: so the last torch that needs no CUDA, and what it does need.
torch=(torch==2.10.0 filelock sympy networkx jinja2 fsspec mpmath markupsafe typing-extensions)
"${wheels[@]}" --target "$folder/torch" --no-deps "${torch[@]}"

cat > "$folder/root/proc/cpuinfo" <<'CPU'
processor	: 0
BogoMIPS	: 200.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma dcpop asimddp asimdfhm
CPU implementer	: 0x48
CPU architecture: 8
CPU variant	: 0x1
CPU part	: 0xd01
CPU revision	: 0

CPU
cat > "$folder/python" <<PYTHON
#!/bin/sh
export PYTHONPATH="\${PYTHONPATH:+\$PYTHONPATH:}$folder/site"
[ -n "\${WITHOUT_TORCH-}" ] || PYTHONPATH="\$PYTHONPATH:$folder/torch"
exec "$qemu" -L "$folder/root" "$folder/root/usr/bin/python3.11" "\$@"
PYTHON
chmod +x "$folder/python"
echo "import sys; sys.executable = '$folder/python'" > "$folder/site/sitecustomize.py"
