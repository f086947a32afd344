"""Pictures of tiles within a budget: those of the reference first, the most used ones before others."""

from dataclasses import replace

from raystp.evaluate.report.viewer.content import MapContent


def with_fewer_pictures(content: MapContent, budget: int) -> tuple[MapContent, list[str]]:
    """Return the maps with at most `budget` bytes of pictures, and a sentence for each kind that was left out.

    Without a picture a reference tile is named only, and a spot's own tile is cut from the thumbnail of its slide.
    """
    references, had, left_out = [], 0, []
    for one in content.references:
        size = len(one.picture or b"")
        had += one.picture is not None
        budget -= size
        references.append(one if budget >= 0 else replace(one, picture=None))
    kept = sum(one.picture is not None for one in references)
    if kept < had:
        left_out.append(f"pictures of reference tiles: {kept} of {had} are in this file")
    slides = []
    for slide in content.slides:
        size = sum(map(len, slide.pictures or ()))
        fits = size <= budget
        budget -= size if fits else 0
        slides.append(slide if fits else replace(slide, pictures=None))
    return replace(content, references=references, slides=slides), left_out
