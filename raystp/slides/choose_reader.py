"""Choose the reader of a slide, after the checks of `readers.checks`: one list for every reader.

- Scanners' own formats: OpenSlide, and the tiled reader for Aperio's TIFFs with the same levels.
- Plain TIFFs, OME-TIFF included: the tiled reader if it supports the largest picture; else OpenSlide if it takes the
  same picture for the slide and the picture is in its stored frame; else the picture is decoded whole.
- PNG and JPEG: decoded whole.
- HDF5: image patches of a slide that is not there.
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openslide
from jaxtyping import Float64

from raystp.errors import SlideError
from raystp.slides.patches.slide import PatchSlide
from raystp.slides.readers.checks import SlideFacts, check_slide
from raystp.slides.readers.flat import FlatSlide
from raystp.slides.readers.flat_image import open_image, open_tiff, unknown_codec
from raystp.slides.readers.headers import file_kind
from raystp.slides.readers.opened import NO_REGIONS, SlideContext
from raystp.slides.readers.openslide_reader import OpenSlideSlide, open_handle, slide_bounds, slide_mpp, vendor_of
from raystp.slides.readers.scale import ScaleSources, resolve_scale
from raystp.slides.tiled.open import TiffHeader, is_pyramid_of, open_file, open_object, read_header
from raystp.slides.tiled.slide import TiledSlide
from raystp.storage import StoragePath
from raystp.units import is_plausible

PLAIN = (None, "generic-tiff")
"""OpenSlide's names of formats that are no scanner's own."""

_STORED_AS_IS = ("JPEG", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB")
"""Compressions whose tiles OpenSlide does not turn by the orientation tag."""

AnySlide = TiledSlide | OpenSlideSlide | FlatSlide | PatchSlide


@dataclass(frozen=True)
class Opening:
    """A slide that is being opened; the slide takes over all of `stack`."""

    name: str
    where: str
    sources: ScaleSources
    stack: contextlib.ExitStack

    def context(
        self,
        facts: SlideFacts,
        *,
        bounds: tuple[int, int, int, int] | None = None,
        empty: Float64[np.ndarray, "region 4"] = NO_REGIONS,
    ) -> SlideContext:
        """Check the facts, and return what the reader gets; it takes over all of the stack."""
        facts = replace(facts, is_mpp_given=self.sources.given is not None)
        warnings = check_slide(self.where, facts)
        sources = replace(self.sources, own=facts.mpp, unused=facts.dpi_mpp, magnification=facts.magnification)
        scale = resolve_scale(self.where, sources)
        return SlideContext(self.name, self.where, scale, self.stack.pop_all(), bounds, warnings, empty)


def open_remote(opening: Opening, path: StoragePath) -> TiledSlide | None:
    """Open an object by its stored tiles; None if it has to be copied to this machine."""
    found = open_object(opening.where, path)
    if found is None:
        return None
    header, tiled = found
    if tiled is not None:
        opening.stack.callback(tiled.source.close)
    if tiled is None or header.pyramid is None:
        check_slide(opening.where, _given(header.facts, opening.sources))  # before the download
        return None
    facts = header.facts if header.pyramid.vendor in PLAIN else _of_scanner(header.facts, header.pyramid.mpp)
    return TiledSlide(tiled, opening.context(facts, empty=header.empty))


def open_local(opening: Opening, path: Path) -> AnySlide:
    """Open a local file.

    Raises:
        SlideError: the file is not a slide, is damaged, fails a check, or has no plausible um/px.
    """
    where = opening.where
    kind = file_kind(where, path)
    if kind == "hdf5":
        return PatchSlide(opening.name, where, path, opening.sources).keep(opening.stack.pop_all())
    header = read_header(where, path) if kind == "tiff" else None
    vendor = vendor_of(path)
    if vendor not in PLAIN:
        return _open_scanners(opening, path, header)
    if header is not None:
        return _open_plain_tiff(opening, path, header)
    image = open_image(where, path, kind)
    if image is None:
        cut = "begins as a TIFF, and has no image where its header says: it was cut off; copy the slide again"
        other = "is not a slide: its format is unknown to OpenSlide and is not JPEG, PNG or TIFF"
        msg = f"{where} {cut if kind == 'tiff' else other}"
        raise SlideError(msg)
    return FlatSlide(image, opening.context(image.facts))


def _open_scanners(opening: Opening, path: Path, header: TiffHeader | None) -> AnySlide:
    """Open a file in a scanner's own format, by OpenSlide's rules for its levels."""
    try:
        handle = open_handle(opening.where, path)
    except SlideError as error:
        if "Unsupported TIFF compression" not in str(error) or header is None:
            raise
        return _open_by_tiles(opening, path, header)
    if handle is None:
        msg = f"{opening.where} is not a slide: OpenSlide knows its format and cannot open it"
        raise SlideError(msg)
    with contextlib.ExitStack() as handle_stack:
        handle_stack.enter_context(handle)
        mpp = slide_mpp(opening.where, handle, is_needed=opening.sources.given is None)
        facts = _of_scanner(_facts_of_handle(handle) if header is None else header.facts, mpp)
        facts = replace(facts, magnification=handle.properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
        is_turned = facts.orientation != 1 and facts.compression not in _STORED_AS_IS
        pyramid = header.pyramid if header is not None else None
        empty = header.empty if header is not None and handle.dimensions == header.sizes[0] else NO_REGIONS
        tiled = None
        if pyramid is not None and is_pyramid_of(handle, pyramid):
            tiled = open_file(opening.where, path, pyramid)
        if tiled is None:
            if is_turned:
                tag = f"{opening.where} has orientation tag {facts.orientation}"
                msg = f"{tag}, which OpenSlide applies to each stored tile; {_RESAVE}"
                raise SlideError(msg)
            opening.stack.push(handle_stack.pop_all())
            return OpenSlideSlide(handle, path, opening.context(facts, bounds=slide_bounds(handle), empty=empty))
    opening.stack.callback(tiled.source.close)
    return TiledSlide(tiled, opening.context(facts, empty=empty))


def _open_by_tiles(opening: Opening, path: Path, header: TiffHeader) -> TiledSlide:
    """Open a scanner's file in a codec that OpenSlide does not know, if its rules for levels are known here."""
    facts, pyramid = header.facts, header.pyramid
    tiled = open_file(opening.where, path, pyramid) if pyramid is not None and pyramid.vendor not in PLAIN else None
    if tiled is None or pyramid is None:
        raise unknown_codec(opening.where, facts)
    opening.stack.callback(tiled.source.close)
    return TiledSlide(tiled, opening.context(_of_scanner(facts, pyramid.mpp), empty=header.empty))


_RESAVE = "save it without the tag: `vips autorot SLIDE NEW.tif[tile,pyramid]`"


def _open_plain_tiff(opening: Opening, path: Path, header: TiffHeader) -> AnySlide:
    """Open a TIFF of no scanner's own format, in the frame of its stored pixels."""
    facts = header.facts
    check_slide(opening.where, _given(facts, opening.sources))
    tiled = open_file(opening.where, path, header.pyramid) if header.pyramid is not None else None
    if tiled is not None:
        opening.stack.callback(tiled.source.close)
        return TiledSlide(tiled, opening.context(facts, empty=header.empty))
    handle = _same_picture(opening.where, path, header)
    if handle is not None:
        opening.stack.enter_context(handle)
        return OpenSlideSlide(handle, path, opening.context(facts, empty=header.empty))
    image = open_tiff(opening.where, path, facts)
    return FlatSlide(image, opening.context(_without_dpi(facts) if not header.is_tiled else facts))


def _same_picture(where: str, path: Path, header: TiffHeader) -> openslide.OpenSlide | None:
    """Return OpenSlide's handle if it takes the same picture for the slide, in the same frame; else None."""
    if header.facts.orientation != 1 or header.planes != 1:
        return None
    try:
        handle = open_handle(where, path)
    except SlideError:  # a codec that OpenSlide does not know
        return None
    if handle is None or handle.level_dimensions != header.sizes:
        if handle is not None:
            handle.close()
        return None
    return handle


def _given(facts: SlideFacts, sources: ScaleSources) -> SlideFacts:
    return replace(facts, is_mpp_given=sources.given is not None)


def _without_dpi(facts: SlideFacts) -> SlideFacts:
    """Return the facts of an untiled TIFF, whose resolution tags are often those of a print or a screen."""
    if facts.mpp is None or all(is_plausible(mpp) for mpp in facts.mpp):
        return facts
    return replace(facts, mpp=None, dpi_mpp=facts.mpp[0])


def _of_scanner(facts: SlideFacts, mpp: tuple[float, float] | None) -> SlideFacts:
    """Return the facts that count in a scanner's own format, which has rules of its own for its other pictures."""
    return replace(facts, mpp=mpp, stack=1, others=(), level_mpp=(), unnamed_planes=False, notes=())


def _facts_of_handle(handle: openslide.OpenSlide) -> SlideFacts:
    """Return the facts of a format that is no TIFF; OpenSlide itself refuses pixels that are not 8-bit."""
    width, height = handle.dimensions
    return SlideFacts(handle.properties.get(openslide.PROPERTY_NAME_VENDOR, "slide"), int(width), int(height))
