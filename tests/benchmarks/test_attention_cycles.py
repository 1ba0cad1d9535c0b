"""Clocks counted in the fused attention's machine code, from disassemblies of a few lines."""

from __future__ import annotations

import attention_cycles as cycles
import pytest

# A ring's loop around a loop over two steps; the branch in it skips what is seldom done.
WARPS = """
 /*0000*/ BAR.SYNC.DEFER_BLOCKING 0x0 ;
 /*0010*/ LDSM.16.M88.4 R4, [R2] ;
 /*0020*/ HMMA.16816.F32 R8, R4, R6, RZ ;
 /*0030*/ SHFL.BFLY PT, R1, R1, 0x1, 0x1f ;
 /*0040*/ @!P0 BRA 0x60 ;
 /*0050*/ FMUL R9, R9, R1 ;
 /*0060*/ MUFU.EX2 R9, R9 ;
 /*0070*/ LDSM.16.MT88.4 R4, [R2] ;
 /*0080*/ HMMA.16816.F32 R8, R4, R6, R8 ;
 /*0090*/ @P0 BRA 0x10 ;
 /*00a0*/ @P1 BRA 0x0 ;
"""
# A loop with a step of 64 keys and one of 32.
WARPGROUPS = """
 /*0000*/ ISETP.GT.AND P0, PT, R1, 0x20, PT ;
 /*0010*/ @P0 BRA 0x50 ;
 /*0020*/ HGMMA.64x32x16.F32 R88, R120, gdesc[UR16], RZ, !UPT, gsb0 ;
 /*0030*/ HGMMA.64x128x16.F32 R24, R152, gdesc[UR16].tnspB, R24, gsb0 ;
 /*0040*/ BRA 0x80 ;
 /*0050*/ HGMMA.64x64x16.F32 R88, R120, gdesc[UR16], RZ, !UPT, gsb0 ;
 /*0060*/ MUFU.EX2 R9, R9 ;
 /*0070*/ HGMMA.64x128x16.F32 R24, R152, gdesc[UR16].tnspB, R24, gsb0 ;
 /*0080*/ @P1 BRA 0x0 ;
"""
HOPPER, AMPERE = cycles.CARDS[:2]


def test_a_step_of_warps_is_the_body_of_the_innermost_loop_without_what_is_seldom_done() -> None:
    step = cycles.step_of(WARPS, rows=32)
    assert (step.products, step.exponentials, step.keys, step.warpgroups) == (2 * 16 * 8 * 16, 1, 1, False)
    # Two loads of four clocks, one shuffle.
    assert step.shared == 9
    # Eight of the inner loop without the skipped one, and the two around it for a tile of 32 keys.
    assert step.issued == pytest.approx(8 + 2 / 32)


def test_a_step_of_warpgroups_is_the_widest_of_its_loop() -> None:
    step = cycles.step_of(WARPGROUPS, rows=16)
    assert (step.keys, step.products) == (64, 16 * 64 * 16 + 16 * 128 * 16)
    assert step.warpgroups


def test_code_without_the_two_products_is_refused() -> None:
    with pytest.raises(ValueError, match="is it the fused attention"):
        cycles.step_of("/*0000*/ BRA 0x0 ;", rows=32)


def test_the_busiest_part_sets_the_clocks_of_a_step() -> None:
    busy = cycles.Step(32, 16, 1 << 18, 10.0, 10, 10, 10.0, warpgroups=False)
    found = cycles.clocks(busy, AMPERE)
    assert found.step == found.tensor == 8 * (1 << 18) / 1024


def test_a_call_is_cut_as_the_library_cuts_it() -> None:
    step = cycles.Step(16, 64, 1 << 18, 10.0, 10, 10, 10.0, warpgroups=True)
    layout = cycles.layout_of(cycles.SPEED["rap-1.3b"], HOPPER, step)
    assert (layout.rows, layout.tiles, layout.blocks, layout.together) == (128, 2, 264, 1)


def test_the_floor_of_the_largest_model_on_an_h100_is_fifteen_microseconds() -> None:
    assert cycles.floor_microseconds(cycles.SPEED["rap-1.3b"], HOPPER) == pytest.approx(15.4, abs=0.1)
