"""From a parsed section to one in raystp's schema: every layout passes the same checks, in the same order."""

from collections.abc import Callable

import anndata as ad
import numpy as np

from raystp.expression.readers.source import SectionSource
from raystp.expression.schema import SectionInfo, SpotPositions, make_section
from raystp.expression.section_checks import array, frame, genes, join, scale, tissue
from raystp.expression.section_checks.raw import Notes, RawSection

Check = Callable[[RawSection, SectionSource, Notes], RawSection]
"""Return the section with one choice made or one part left out, and note it; raise SectionError for a fault."""

SECTION_CHECKS: dict[str, Check] = {
    "feature types": genes.keep_gene_expression,
    "gene names": genes.name_genes,
    "genes once": genes.make_names_unique,
    "genes named": genes.check_gene_names,
    "library": join.choose_library,
    "suffixes": join.match_suffixes,
    "spots once": join.check_names_once,
    "in tissue": tissue.check_in_tissue,
    "positions differ": join.check_positions_differ,
    "image": frame.move_to_image,
    "array": array.fit_to_array,
    "scale": scale.resolve_scale,
    "join": join.join_places,
    "raw counts": tissue.check_raw_counts,
    "measured": tissue.drop_unmeasured,
}
"""What every section passes; the schema at the end checks finite positions, and all of it again."""


def finish_section(raw: RawSection, source: SectionSource, notes: Notes) -> tuple[ad.AnnData, Notes]:
    """Run all checks and make the section; returns it with the notes, to which the checks add."""
    for check in SECTION_CHECKS.values():
        raw = check(raw, source, notes)
    assert raw.scale is not None
    places = raw.places
    known = places.array if places.array is not None else places.xy  # without an array, places stand for it
    section = make_section(
        raw.counts,
        raw.genes.names,
        SpotPositions(
            names=raw.spots,
            xy=places.xy,
            array_row=np.ascontiguousarray(known[:, 1]),
            array_col=np.ascontiguousarray(known[:, 0]),
        ),
        SectionInfo(
            section=source.section,
            patient=source.patient,
            slide=source.slide,
            mpp=raw.scale.mpp,
            spot_diameter_um=raw.scale.spot_diameter_um,
            pitch_um=raw.scale.pitch_um,
            layout=source.layout,
        ),
        gene_ids=raw.genes.ids,
        scalefactors=raw.facts.factors,
    )
    return section, notes
