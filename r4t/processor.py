"""What the processor of this machine can do, as Linux tells it."""

from __future__ import annotations

import re
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
# What oneDNN asks for, which multiplies for torch on x86. Without bfloat16 instructions of its own AVX-512 widens it.
BFLOAT16 = ({"avx512bw"}, {"avx_ne_convert", "avx_vnni_int8"})


def instruction_sets(cpu_info: Path = CPU_INFO) -> set[str]:
    """Names of the kernel's flags; empty where there are none to read (macOS)."""
    return set(re.findall(r"\w+", cpu_info.read_text())) if cpu_info.is_file() else set()


def lacks_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether this is an x86 processor on which torch multiplies bfloat16 in plain loops."""
    found = instruction_sets(cpu_info)
    return "sse2" in found and not any(needed <= found for needed in BFLOAT16)
