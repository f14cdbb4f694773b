"""What the library finds out about the CPU is what the system says of it."""

from pathlib import Path

import pytest

from openwork.engine import _native

CPUINFO = Path("/proc/cpuinfo")
NAMES = {"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx_vnni"} | {
    *("amx_tile", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "bf16"),
}


@pytest.mark.skipif(not CPUINFO.is_file(), reason="needs Linux's /proc/cpuinfo")
def test_features_are_those_that_linux_names():
    lines = (line.partition(":") for line in CPUINFO.read_text().splitlines())
    said = next(set(value.split()) for key, _, value in lines if key.strip() in ("flags", "Features"))
    found = set(_native.cpu_features())
    refused = {"amx_tile", "amx_int8"} - found  # a process may be refused the registers that the CPU has
    assert found == (said & NAMES) - refused and refused in (set(), {"amx_tile", "amx_int8"})


def test_kernels_are_those_whose_features_are_there():
    wide = {"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"}
    vnni = wide | {"avx512_vnni"}
    needs = {"avx512amx": vnni | {"amx_tile", "amx_int8"}, "avx512vnni": vnni, "avx512": wide}
    needs |= {"avx2vnni": {"avx2", "fma", "avx_vnni"}, "avx2": {"avx2", "fma"}}
    needs |= {"neondot": {"asimd", "asimddp"}, "neon": {"asimd"}, "base": set(), "reference": set()}
    assert _native.isas() == [name for name, features in needs.items() if features <= set(_native.cpu_features())]
