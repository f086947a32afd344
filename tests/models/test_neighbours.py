"""Neighbours by distance: on arrays, grids and scattered positions, within a slide, independent of the chunk size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float64

import raystp.models.neighbours as module
from raystp.errors import SectionError
from raystp.expression.readers.registry import read
from raystp.expression.readers.source import SectionSource
from raystp.models.neighbours import REACH, SpotNeighbours, neighbours
from raystp.storage import StoragePath
from raystp.units import tile_centres

Positions = Float64[np.ndarray, "spot 2"]


def _square(n: int, pitch: float = 100.0) -> Positions:
    return np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2) * pitch


def _hexagonal(n: int, pitch: float = 100.0) -> Positions:
    row, column = np.mgrid[:n, :n]
    return np.column_stack([(column + row % 2 / 2).ravel() * pitch, row.ravel() * pitch * 3**0.5 / 2])


def _by_hand(xy: Positions, slides: list[str], k: int, within: float) -> SpotNeighbours:
    """Return the neighbours by comparing every pair."""
    rows, mask = np.empty((len(xy), k), dtype=np.int64), np.zeros((len(xy), k), dtype=np.bool_)
    for spot in range(len(xy)):
        distance = np.round(np.hypot(*(xy - xy[spot]).T), 6)
        others = [o for o in range(len(xy)) if o != spot and slides[o] == slides[spot] and distance[o] <= within]
        chosen = [spot, *sorted(others, key=lambda other: (distance[other], other))[: k - 1]]
        mask[spot, : len(chosen)] = True
        rows[spot] = chosen + [spot] * (k - len(chosen))
    return SpotNeighbours(rows, mask)


def _assert_same(one: SpotNeighbours, other: SpotNeighbours) -> None:
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.mask, other.mask)


def _degrees(around: SpotNeighbours) -> dict[int, int]:
    sizes, counts = np.unique(around.mask.sum(axis=1), return_counts=True)
    return dict(zip(sizes.tolist(), counts.tolist(), strict=True))


def test_inside_a_square_array_the_neighbours_are_three_by_three() -> None:
    around = neighbours(_square(5))
    assert around.rows[12].tolist() == [12, 7, 11, 13, 17, 6, 8, 16, 18]
    assert around.mask.all()


def test_within_reach_a_square_array_has_4_nodes_at_corners_6_at_edges_and_9_inside() -> None:
    around = neighbours(_square(5), within=REACH * 100)
    assert _degrees(around) == {4: 4, 6: 12, 9: 9}
    assert around.rows[0].tolist() == [0, 1, 5, 6, 0, 0, 0, 0, 0]
    assert around.mask[0].tolist() == [True] * 4 + [False] * 5


def test_within_reach_a_hexagonal_array_has_7_nodes_inside() -> None:
    around = neighbours(_hexagonal(6), within=REACH * 100)
    inside = [row * 6 + column for row in range(1, 5) for column in range(1, 5)]
    assert around.mask[inside].sum(axis=1).tolist() == [7] * 16
    assert sorted(around.rows[14, :7].tolist()) == [7, 8, 13, 14, 15, 19, 20]
    assert (around.mask.sum(axis=1) <= 7).all()


def test_ties_are_ordered_by_row_under_shift_and_rotation() -> None:
    array = _hexagonal(8)
    unmoved = neighbours(array)
    rotated = array @ np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    _assert_same(unmoved, neighbours(array + np.array([12345.678, 54321.098])))
    _assert_same(unmoved, neighbours(rotated))
    _assert_same(unmoved, _by_hand(array, ["a"] * 64, 9, np.inf))


@pytest.mark.parametrize("k", [1, 2, 9, 40])
def test_scattered_positions_on_mixed_slides_have_the_neighbours_of_a_comparison_of_all_pairs(k: int) -> None:
    rng = np.random.default_rng(0)
    xy = np.round(rng.random((90, 2)) * 12)  # whole numbers: many ties, some spots at one position
    slides = rng.choice(["a", "b", "c"], 90).tolist()
    for within in (np.inf, 3.0):
        around = neighbours(xy, slides, k=k, within=within)
        _assert_same(around, _by_hand(xy, slides, k, within))
        assert all(slides[other] == slides[spot] for spot, row in enumerate(around.rows.tolist()) for other in row)


def test_spots_at_one_position_are_their_own_first_node() -> None:
    around = neighbours(np.zeros((60, 2)), k=4)
    assert around.rows[:, 0].tolist() == list(range(60))
    assert around.rows[50].tolist() == [50, 0, 1, 2]
    assert around.mask.all()


def test_slides_together_have_the_neighbours_of_each_alone() -> None:
    first, second = _square(6), _hexagonal(5, pitch=37.0)
    together = neighbours(
        np.concatenate([first, second]),
        ["first"] * 36 + ["second"] * 25,
        within=np.array([REACH * 100] * 36 + [REACH * 37] * 25),
    )
    alone = neighbours(first, within=REACH * 100), neighbours(second, within=REACH * 37)
    np.testing.assert_array_equal(together.rows, np.concatenate([alone[0].rows, alone[1].rows + 36]))
    np.testing.assert_array_equal(together.mask, np.concatenate([alone[0].mask, alone[1].mask]))


def test_the_chunk_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    xy = np.round(np.random.default_rng(1).random((500, 2)) * 30)
    whole = neighbours(xy)
    monkeypatch.setattr(module, "_CHUNK", 7)
    _assert_same(whole, neighbours(xy))


def test_a_small_slide_has_absent_nodes() -> None:
    around = neighbours(np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]]), ["a", "a", "b"], k=4)
    assert around.rows.tolist() == [[0, 1, 0, 0], [1, 0, 1, 1], [2, 2, 2, 2]]
    assert around.mask.sum(axis=1).tolist() == [2, 2, 1]
    assert neighbours(np.empty((0, 2))).rows.shape == (0, 9)


def test_neighbours_of_a_tile_grid_are_found_by_tile_centres() -> None:
    corners = np.column_stack([_square(40), np.full(1600, 100.0)])
    np.testing.assert_array_equal(tile_centres(corners)[41], [150.0, 150.0])
    _assert_same(neighbours(tile_centres(corners)), neighbours(_square(40)))
    jittered = np.rint(tile_centres(corners) * 1.017)  # corners on whole px, as a native tile's are
    assert _degrees(neighbours(jittered, within=REACH * 101.7)) == {4: 4, 6: 4 * 38, 9: 38 * 38}


def test_a_real_section_has_nearly_all_its_neighbours(real_data: Path) -> None:
    counts = StoragePath.of(real_data / "her2st" / "ST-cnts" / "C2.tsv.gz")
    positions = StoragePath.of(real_data / "her2st" / "ST-spotfiles" / "C2_selection.tsv")
    section = read(SectionSource("C2", "C2", "C", "legacy_st", counts, positions))[0]
    label = section.uns["raystp"]
    around = neighbours(section.obsm["spatial"], within=REACH * label["pitch_um"] / label["mpp"])
    assert around.mask.sum(axis=1).mean() > 7
    assert around.mask[:, 0].all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"xy": np.array([[0.0, np.nan], [1.0, 1.0]])}, "positions of 1 of 2 spots are nan"),
        ({"slides": ["a"]}, "2 positions and 1 slide labels"),
        ({"k": 0}, "got k 0"),
        ({"within": 0.0}, "a length of 0.0"),
    ],
)
def test_invalid_arguments_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SectionError, match=message):
        neighbours(**{"xy": np.array([[0.0, 0.0], [1.0, 1.0]]), **given})
