"""Tiles of the experts' products that a check of a GPU tries beside the one that is in use."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from actors.kernels.gpu.experts import LayerTiles, Tile, grouped_ffn
from actors.kernels.interface import Kernels
from jobs.checks.gpu_cases import Sizes
from jobs.checks.gpu_kernels import Result, Selection, check_cases
from pipeline.errors import ConfigError

FORM = "ROWSxCOLUMNSxDEPTHxWARPSxSTAGES"


@dataclass(frozen=True)
class TileResult:
    """The result of a case with another tile; `failure` where the tile does not compile."""

    tile: Tile
    result: Result | None
    failure: str = ""


def read_tile(text: str) -> Tile:
    """Returns the tile of a flag, e.g. 64x128x64x4x3.

    Raises:
        ConfigError: the text has another form.
    """
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){4}", text):
        raise ConfigError(f"--tile: expected {FORM}, e.g. 64x128x64x4x3, got {text!r}")
    return Tile(*map(int, text.split("x")))


def check_tiles(
    sizes: Sizes,
    kernels: Kernels,
    tiles: Sequence[Tile],
    selection: Selection,
    *,
    is_timed: bool,
    is_interpreted: bool,
) -> Iterator[TileResult]:
    """Yields the results of the experts' cases with each tile."""
    experts = replace(selection, kernel="experts")
    for tile in tiles:
        grouped = partial(grouped_ffn, interpret=is_interpreted, shapes=LayerTiles(tile, tile))
        with_tile = kernels._replace(grouped_ffn=grouped)
        try:
            for result in check_cases(sizes, with_tile, is_timed=is_timed, selection=experts):
                yield TileResult(tile, result)
        # A tile may need more shared memory or registers than the chip has. The others still count.
        except Exception as error:  # noqa: BLE001
            yield TileResult(tile, None, f"{type(error).__name__}: {error}")


def tile_text(tile: Tile) -> str:
    """Returns a tile in the form of the flag."""
    return "x".join(map(str, tile))
