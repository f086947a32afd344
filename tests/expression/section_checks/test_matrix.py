"""Each check of `SECTION_CHECKS` on each layout: the same fault gives the same answer, whatever the files are."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from raystp.errors import SectionError
from raystp.expression.readers.registry import LAYOUTS, POOLED, read
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.finish import SECTION_CHECKS
from raystp.expression.section_checks.raw import warnings_of
from tests.expression.toy_layouts import ALL_LAYOUTS, GENES, IDS, MPP, Toy, toy, without, write

Notes = dict[str, object]


@dataclass(frozen=True)
class Seen:
    """A section as it was read."""

    section: ad.AnnData
    notes: Notes
    layout: str

    def warns(self, text: str) -> bool:
        return any(re.search(text, warning) for warning in warnings_of(self.notes))


@dataclass(frozen=True)
class Case:
    """A fault, and what each layout makes of it."""

    change: Callable[[Toy], Toy] = lambda section: section
    given: Callable[[SectionSource], SectionSource] = lambda source: source
    error: str = ""
    """Pattern of the error; empty: the section is read."""
    error_but: tuple[str, ...] = ()
    """Layouts that read it all the same, for the reason beside the case."""
    holds: Callable[[Seen], object] = bool


def _named(section: Toy, **names: str) -> Toy:
    places = [names.get(name, name) for name in section.places]
    return replace(section, places=places, own_places=False)


def _shuffled(section: Toy) -> Toy:
    return replace(section, xy=np.random.default_rng(0).permutation(section.xy))


def _twice(section: Toy) -> Toy:
    return replace(section, spots=[section.spots[1], *section.spots[1:]])


def _at(section: Toy, row: int, values: list[float]) -> Toy:
    counts = section.counts.copy()
    counts[row] = values
    return replace(section, counts=counts)


def _xy(section: Toy, rows: slice, value: float) -> Toy:
    xy = section.xy.copy()
    xy[rows] = value
    return replace(section, xy=xy)


def _mirrored(section: Toy) -> Toy:
    return replace(section, xy=np.asarray([5000.0, 0.0] + section.xy * [-1.0, 1.0]))


def _words(section: Toy, no: str, yes: str) -> Toy:
    return replace(section, flags=[no, no, *[yes] * (len(section.spots) - 2)])


def _renamed(section: Toy, spot: Callable[[str], str]) -> Toy:
    """Rename the first spots on the side of the counts."""
    return replace(section, spots=[spot(name) for name in section.spots[:20]] + section.spots[20:], own_places=False)


def _libraries(section: Toy) -> Toy:
    """Return two libraries: by obs in an h5ad, by the suffix of the barcode in an aggregate."""
    half = len(section.spots) // 2
    spots = [name.replace("-1", "-2") if row >= half else name for row, name in enumerate(section.spots)]
    return replace(section, spots=spots, places=list(spots), libraries=["1"] * half + ["2"] * half)


def _named_by_ids(section: Toy) -> Toy:
    names = [f"{gene}.{row + 1}" for row, gene in enumerate(IDS)]
    return replace(section, genes=names, ids=names, symbols=list(GENES))


CASES: dict[str, list[Case]] = {
    "feature types": [
        Case(  # a table of legacy ST has no types
            lambda section: replace(section, kinds=["Gene Expression"] * 8 + ["Antibody Capture"] * 2),
            holds=lambda seen: (
                (seen.section.n_vars, seen.notes["dropped_features"])
                == ((10, 0) if seen.layout == "legacy_st" else (8, 2))
            ),
        ),
        Case(
            lambda section: replace(section, kinds=["Antibody Capture"] * 10),
            error="no feature of type 'Gene Expression'; its 10 features are 'Antibody Capture'",
            error_but=("legacy_st",),
        ),
    ],
    "gene names": [
        Case(
            _named_by_ids,
            holds=lambda seen: (
                seen.section.var_names.tolist() == (GENES if seen.layout == "scverse" else IDS)
                and seen.section.var["gene_ids"].tolist() == IDS
            ),
        )
    ],
    "genes once": [
        Case(
            lambda section: replace(section, genes=["VIM", *GENES[1:]]),
            holds=lambda seen: seen.section.var_names[[0, 2]].tolist() == [f"VIM_{IDS[0]}", f"VIM_{IDS[2]}"],
            error="lists 1 genes more than once .'VIM'.",
            error_but=("space_ranger", "scverse"),  # these have ids
        )
    ],
    "genes named": [
        Case(lambda section: replace(section, genes=[*GENES[:4], "", *GENES[5:]]), error="1 genes without a name")
    ],
    "library": [
        Case(
            _libraries,
            error="2 libraries .'1', '2'., and none has the name of the section or the slide.* column `library`",
            error_but=("legacy_st",),
        ),
        Case(
            _libraries,
            lambda source: replace(source, library="2"),
            holds=lambda seen: (
                seen.warns("library '2' is not used")
                if seen.layout == "legacy_st"
                else (seen.section.n_obs, seen.notes["dropped_other_libraries"]) == (32, 32)
            ),
        ),
    ],
    "suffixes": [
        Case(  # names of legacy spots have no suffix
            lambda section: replace(
                section, spots=[name.removesuffix("-1") for name in section.spots], own_places=False
            ),
            holds=lambda seen: (
                seen.section.n_obs == 64 and (seen.layout == "legacy_st" or seen.warns("compared without their suffix"))
            ),
        ),
        Case(
            lambda section: replace(
                section, spots=[name.replace("-1", "-3") for name in section.spots], own_places=False
            ),
            error="counts end in -3, those of the positions in -1, .* set `library` to 3",
            error_but=("legacy_st",),
        ),
    ],
    "spots once": [Case(_twice, error="lists 1 spots more than once in its counts")],
    "in tissue": [
        Case(
            lambda section: _words(section, "False", "True"),
            holds=lambda seen: (seen.section.n_obs, seen.notes["dropped_off_tissue"]) == (62, 2),
        ),
        Case(
            lambda section: _words(section, "off tissue", "in tissue"),
            holds=lambda seen: seen.section.n_obs == 62,
        ),
        Case(lambda section: _words(section, "left", "right"), error="in_tissue has 'left', 'right'; expected 1 or 0"),
        Case(lambda section: _words(section, "", "1"), error="in_tissue is empty for 2 of 64 spots"),
        Case(
            lambda section: replace(section, flags=[np.nan] * 64),
            holds=lambda seen: seen.section.n_obs == 64 and seen.warns("empty for every"),
        ),
        Case(
            lambda section: replace(section, flags=[0] * 64),
            error="none of its 64 places is in tissue",
            error_but=("scverse",),  # HEST's flag has no meaning
            holds=lambda seen: seen.section.n_obs == 64 and seen.warns("no meaning"),
        ),
    ],
    "image": [
        Case(
            given=lambda source: replace(source, image="hires"),
            error="image=hires needs tissue_hires_scalef.*multiply the positions",
            error_but=("space_ranger", "scverse"),  # these have the factor
            holds=lambda seen: (
                seen.section.uns["raystp"]["mpp"] == pytest.approx(MPP / 0.25)
                and seen.section.obsm["spatial"][0].tolist() == [100.0, 75.0]
            ),
        ),
        Case(
            given=lambda source: replace(source, image="thumbnail"), error="image is 'thumbnail'; choose one of fullres"
        ),
    ],
    "array": [
        Case(
            _mirrored,
            error="array is mirrored in the positions .* allow_mirrored=true",
            error_but=("legacy_st",),  # its arrays are printed in both directions
            holds=lambda seen: seen.warns("array is mirrored"),
        ),
        Case(
            lambda section: replace(section, xy=section.xy[:, ::-1].copy()),
            error="array is mirrored in the positions .array columns run along y.",
            error_but=("legacy_st",),
            holds=lambda seen: seen.warns("array is mirrored"),
        ),
        Case(_shuffled, error="do not follow their array coordinates"),
    ],
    "scale": [
        Case(holds=lambda seen: seen.notes["pitch_um"] == (200.0 if seen.layout == "legacy_st" else 100.0)),
        Case(
            given=lambda source: replace(source, mpp=2 * MPP),
            error="mpp 1 was given, but the spots' pitch gives 0.5 um/px: .* would be 200 um apart",
            error_but=("legacy_st",),  # a given um/px wins
            holds=lambda seen: seen.warns("mpp 1 was given, but the spots' pitch gives 0.5 um/px"),
        ),
        Case(
            given=lambda source: replace(source, mpp=1.05 * MPP),
            holds=lambda seen: seen.warns("mpp 0.525 was given, but the spots' pitch gives 0.5 um/px.*0.525 is used"),
        ),
        Case(given=lambda source: replace(source, mpp=352.8), error="implausible 352.8 um/px"),
    ],
    "join": [
        Case(
            lambda section: _renamed(section, lambda name: f"9{name}"),
            error="20 of 64 spots with counts have no position in tissue .*44 spots have both.* max_lost",
        ),
        Case(
            lambda section: replace(without(section, list(range(10))), own_places=False),
            error="10 of 64 positions in tissue have no counts",
        ),
        Case(
            lambda section: replace(without(section, [0, 1]), own_places=False),
            holds=lambda seen: (seen.section.n_obs, seen.notes["dropped_no_counts"]) == (62, 2),
        ),
    ],
    "raw counts": [
        Case(lambda section: _at(section, 3, [0.5] * 10), error="10 counts that are not whole numbers.*ACTB = 0.5"),
        Case(lambda section: _at(section, 3, [-1.0] + [5.0] * 9), error="1 negative counts: .*/ACTB = -1"),
        Case(lambda section: _at(section, 3, [np.nan] + [5.0] * 9), error="1 counts that are not finite numbers"),
    ],
    "measured": [
        Case(
            lambda section: _at(_at(section, 3, [2.0] + [0.0] * 9), 4, [0.0] * 10),
            holds=lambda seen: (
                (
                    seen.section.n_obs,
                    seen.notes["dropped_empty"],
                    seen.notes["dropped_low_counts"],
                    seen.notes["dropped_low_counts_umi"],
                )
                == (62, 1, 1, 2.0)
            ),
        ),
        Case(
            lambda section: _at(section, 3, [2.0] + [0.0] * 9),
            lambda source: replace(source, options=replace(source.options, min_counts=0.0)),
            holds=lambda seen: (seen.section.n_obs, seen.notes["dropped_low_counts"]) == (64, 0),
        ),
        Case(
            lambda section: replace(section, counts=np.ones((64, 10)) * (np.arange(10) < 3)),
            error="no spot left: of 64 spots in tissue, 0 have no count and 64 fewer than 10 UMI .the most is 3",
        ),
    ],
    "positions differ": [
        Case(lambda section: _xy(section, slice(0, 10), 500.0), error="have the same position|over half a pitch")
    ],
    "finite positions": [
        Case(lambda section: _xy(section, slice(5, 6), np.nan), error="1 spots whose position is not finite")
    ],
}


def test_every_check_and_every_layout_is_in_the_matrix() -> None:
    assert set(CASES) - {"finite positions"} == set(SECTION_CHECKS)
    # A layout that pools makes its own spots, on a square array: its faults are in tests/expression/readers/pooled.
    # `hest` is `scverse` with a file beside it, and `stimage` has one table of places as `space_ranger` has: their own
    # faults are in tests/expression/readers/others.
    assert set(ALL_LAYOUTS) | set(POOLED) | {"hest", "stimage"} == set(LAYOUTS)


@pytest.mark.filterwarnings("ignore:Observation names are not unique", "ignore:Variable names are not unique")
@pytest.mark.parametrize("layout", ALL_LAYOUTS)
@pytest.mark.parametrize(
    ("name", "number"),
    [pytest.param(name, n, id=f"{name}{n}") for name, cases in CASES.items() for n in range(len(cases))],
)
def test_each_check_answers_alike_in_each_layout(tmp_path: Path, name: str, number: int, layout: str) -> None:
    case = CASES[name][number]
    source = case.given(write(case.change(toy(layout)), layout, tmp_path))
    if case.error and layout not in case.error_but:
        with pytest.raises(SectionError, match=rf"^section 'S1' .*({case.error})"):
            read(source)
        return
    section, notes = read(source)
    assert case.holds(Seen(section, notes, layout))


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
def test_a_sound_section_is_the_same_in_each_layout_and_has_no_warning(tmp_path: Path, layout: str) -> None:
    sound = toy(layout)
    section, notes = read(write(sound, layout, tmp_path))
    assert warnings_of(notes) == []
    assert section.X.toarray().tolist() == sound.counts.tolist()
    assert section.obsm["spatial"].tolist() == pytest.approx(sound.xy)
    assert section.obs_names.tolist() == sound.spots
    assert section.var_names.tolist() == GENES
    assert section.uns["raystp"]["mpp"] == pytest.approx(MPP)
