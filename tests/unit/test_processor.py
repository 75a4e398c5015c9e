"""What a processor says it can do, and whether torch agrees."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from r4t.processor import instruction_sets, lacks_bfloat16


@pytest.mark.parametrize(
    ("flags", "lacking"),
    [
        ("fpu sse2 avx2", True),
        ("fpu sse2 avx2 avx512f", True),
        ("fpu sse2 avx2 avx512f avx512bw avx512vl", False),
        ("fpu sse2 avx2 avx_vnni_int8 avx_ne_convert", False),
        ("fp asimd bf16", False),  # arm64: nothing is known to be slow
        ("", False),
    ],
)
def test_bfloat16_needs_avx512_or_its_own_instructions(flags: str, lacking: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert set(flags.split()) <= instruction_sets(tmp_path / "cpuinfo")
    assert lacks_bfloat16(tmp_path / "cpuinfo") == lacking


def test_without_anything_to_read_nothing_is_lacking(tmp_path: Path) -> None:
    assert instruction_sets(tmp_path / "absent") == set()
    assert not lacks_bfloat16(tmp_path / "absent")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN's rule is another on other processors")
def test_torch_says_the_same_of_this_machine() -> None:
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported() != lacks_bfloat16()
