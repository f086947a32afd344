"""The image whose pixels the positions are in: the full-resolution one, or Space Ranger's smaller pictures of it."""

from dataclasses import replace

from raystp.errors import SectionError
from raystp.expression.readers.source import SectionSource
from raystp.expression.section_checks.raw import Notes, RawSection

IMAGES = ("fullres", "hires", "lowres")


def move_to_image(raw: RawSection, source: SectionSource, notes: Notes) -> RawSection:
    """Multiply places and lengths in px by the scale factor of the slide's picture, if it is not the full-res one."""
    image = source.image or IMAGES[0]
    if image not in IMAGES:
        msg = f"{source.origin}: image is {image!r}; choose one of {', '.join(IMAGES)}"
        raise SectionError(msg)
    if image == IMAGES[0]:
        return raw
    name = f"tissue_{image}_scalef"
    factor = raw.facts.factors.get(name)
    if factor is None or not 0 < factor <= 1:
        found = "the files have no such scale factor" if factor is None else f"it is {factor:g}"
        msg = (
            f"{source.origin}: image={image} needs {name}, between 0 and 1, and {found}: multiply the positions by "
            "it yourself, or give the full-resolution image"
        )
        raise SectionError(msg)
    notes["image"] = image
    notes["image_scale"] = factor
    factors = {
        key: value * factor if key.endswith("_fullres") else value / factor for key, value in raw.facts.factors.items()
    }
    for key in ("microns_per_pixel", "bin_size_um", "regist_target_img_scalef"):
        factors.pop(key, None)
    stored = raw.facts.stored_mpp
    facts = replace(raw.facts, factors=factors, stored_mpp=stored and (stored[0], stored[1] / factor))
    pitch_px = None if raw.lattice_pitch_px is None else raw.lattice_pitch_px * factor
    places = replace(raw.places, xy=raw.places.xy * factor)
    return replace(raw, places=places, facts=facts, lattice_pitch_px=pitch_px)
