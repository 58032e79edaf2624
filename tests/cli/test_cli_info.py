"""`fq-tvm info`: what it says of this machine."""

from __future__ import annotations

from fq_tvm.cli import info


def test_info(ask, cache_dir):
    answer = ask("info", "--json")
    assert answer["cpu"] not in ("", "native", "host")
    assert answer["features"] == sorted(answer["features"])
    assert answer["threads"] >= 1
    assert answer["cache"]["path"] == cache_dir
    assert answer["artifacts"] is None
    assert {"fq_tvm", "apache-tvm", "apache-tvm-ffi", "numpy"} <= set(answer["versions"])
    assert answer["extras"]["demo"]["safetensors"]
    text = ask("info")
    for word in (answer["cpu"], cache_dir, answer["versions"]["apache-tvm"], "threads", "features"):
        assert word in text


def test_info_names_a_missing_extra(ask, monkeypatch):
    monkeypatch.setattr(info, "EXTRAS", {"sky": ("no-such-package",)})
    assert ask("info", "--json")["extras"] == {"sky": {"no-such-package": None}}
    assert 'pip install "fq_tvm[sky]"' in ask("info")


def test_info_of_an_unknown_cpu(refused, monkeypatch):
    monkeypatch.setenv("FQ_TVM_TARGET", "z80")
    assert "'z80'" in refused("info")


def test_info_of_bad_threads(refused, monkeypatch):
    monkeypatch.setenv("FQ_TVM_NUM_THREADS", "many")
    assert "FQ_TVM_NUM_THREADS is 'many'" in refused("info")
