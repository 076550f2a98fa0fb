"""gpu_tiles.py: tiles of flags, and the experts' cases with them."""

from dataclasses import replace
from functools import partial

import jax
import pytest

from actors.kernels.gpu.experts import LayerTiles, Tile, grouped_ffn
from actors.kernels.gpu.platform import INTERPRETED
from jobs.checks.gpu_cases import TINY
from jobs.checks.gpu_kernels import Selection
from jobs.checks.gpu_tiles import check_tiles, read_tile, tile_text
from pipeline.errors import ConfigError

SIZES = replace(TINY, float32_tokens=())


def test_tile_is_five_numbers() -> None:
    tile = read_tile("64x128x32x4x3")

    assert tile == Tile(rows=64, columns=128, depth=32, warps=4, stages=3)
    assert tile_text(tile) == "64x128x32x4x3"


@pytest.mark.parametrize("text", ["", "64", "64x128x32x4", "64x128x32x4x0", "axbxcxdxe"])
def test_tile_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--tile: expected ROWSxCOLUMNSxDEPTHxWARPSxSTAGES"):
        read_tile(text)


def test_experts_are_computed_with_the_tile_of_the_flag() -> None:
    tile = read_tile("32x32x32x4x2")

    [tried] = check_tiles(
        SIZES, INTERPRETED.kernels, [tile], Selection(), is_timed=False, is_interpreted=True
    )

    assert tried.tile == tile
    assert tried.result is not None
    assert tried.result.case.kernel == "experts"
    assert tried.result.is_right
    run = partial(grouped_ffn, interpret=True, shapes=LayerTiles(tile, tile))
    chosen_NX, x_ND, weights = tried.result.case.arguments
    assert "grouped_2x_32_rows" in str(jax.make_jaxpr(run)(x_ND, chosen_NX, weights))


def test_tile_that_fails_does_not_stop_the_others() -> None:
    tiles = [Tile(0, 32, 32, 4, 2), read_tile("16x32x32x4x2")]

    failed, tried = check_tiles(
        SIZES, INTERPRETED.kernels, tiles, Selection(), is_timed=False, is_interpreted=True
    )

    assert failed.result is None
    assert failed.failure
    assert tried.result is not None
