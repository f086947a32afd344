"""The line about a section says what was found and dropped, and nothing that did not happen."""

from raystp.expression.sections import SectionEntry
from raystp.steps.spots.summary import section_summary


def _entry(**notes: object) -> SectionEntry:
    return {"patient": "P", "slide": "S", "mpp": 0.5, "spots": 1200, "genes": 15000, "notes": notes}


def test_a_section_is_one_short_line_with_its_pitch_and_its_scale() -> None:
    notes = {"technology": "Visium", "pitch_um": 100.0, "mpp_from": "pitch", "mpp_by_pitch": 0.5, "dropped_empty": 0}
    line = section_summary(_entry(**notes, dropped_off_tissue=0, renamed_genes=0, mirrored=False))
    assert line == "1,200 spots x 15,000 genes; spots 100 um apart (Visium); 0.5000 um/px (by their pitch)"


def test_what_was_dropped_is_counted_with_its_reason_and_both_scales_are_named() -> None:
    notes = {
        "pitch_like": "legacy ST",
        "pitch_um": 200.0,
        "mirrored": True,
        "mpp_from": "given",
        "mpp_by_pitch": 0.52,
        "dropped_off_tissue": 3,
        "dropped_low_counts": 2,
        "dropped_low_counts_umi": 1010.0,
        "min_counts": 10,
        "dropped_features": 5,
    }
    line = section_summary(_entry(**notes))
    assert "spots 200 um apart (like legacy ST), mirrored array; 0.5000 um/px (given, 0.5200 by their pitch)" in line
    assert "dropped 3 off tissue, 2 below 10 UMI (1,010 UMI together); 5 other features left out" in line


def test_a_section_without_a_pitch_says_so_and_where_its_scale_is_from() -> None:
    line = section_summary(_entry(mpp_from="scalefactors"))
    assert line.endswith("15,000 genes; pitch unknown; 0.5000 um/px (scalefactors)")


def test_the_median_of_nearest_centres_is_printed_where_places_jitter_about_their_array() -> None:
    notes = {"technology": "legacy ST, 1k array", "pitch_um": 200.0, "mpp_from": "pitch", "nearest_um": 187.3}
    line = section_summary(_entry(**notes))
    assert "spots 200 um apart (legacy ST, 1k array), median of nearest centres 187.3 um; 0.5000" in line


def test_pooled_squares_say_what_was_pooled_and_how_well_the_points_of_the_alignment_fit() -> None:
    notes = {
        "pitch_um": 100.0,
        "mpp_from": "the H&E alignment",
        "pooled": "5 transcripts to squares of 100 um",
        "dropped_outside_image": 3,
        "alignment_points": 5,
        "alignment_residual_um": 1.2345,
    }
    line = section_summary(_entry(**notes))
    assert "dropped 3 outside of the image" in line
    assert line.endswith(
        "pooled 5 transcripts to squares of 100 um; H&E aligned by 5 points, 1.23 um off (root mean square)"
    )
