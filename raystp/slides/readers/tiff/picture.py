"""Which picture of a TIFF is the slide: the largest one, with the levels below it and its own um/px.

A TIFF may hold a label, a macro image and a thumbnail in any order, each in a directory of its own. A label may have
the patient's name, and a macro image shows the label: neither is the slide, even the largest. Coarser levels are
SubIFDs of the largest picture, or directories marked as reduced that have its shape. OME-XML may say that three grey
directories are the red, green and blue of one picture. Scanners with rules of their own are not described here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tifffile

from raystp.slides.readers.headers import sub_directories
from raystp.slides.readers.tiff.lengths import imagej_fields, resolution_mpp
from raystp.slides.readers.tiff.ome import OmeImage, is_ome, read_ome
from raystp.units import is_plausible

RGB_PLANES = 3

MPP_TOLERANCE = 0.05

_MASK = 4
"""Bit of NewSubfileType: a transparency mask of another picture."""

_MACRO = 9
"""NewSubfileType of Aperio's macro image."""

Directories = tuple[tifffile.TiffPage, ...]
"""One picture: one directory, or one for each of red, green and blue."""


@dataclass(frozen=True, eq=False)
class Picture:
    """The largest picture of a TIFF, and what its directories and OME-XML state about it."""

    levels: tuple[Directories, ...]
    """The finest first."""
    others: tuple[str, ...]
    """Each other picture: its directory and size."""
    stack: int
    """Pictures of this size, such as focal planes, time points or channels; 1 for one picture."""
    mpp: tuple[float, float] | None
    """The picture's own um/px along x and y: of OME-XML, else of ImageJ or the resolution tags."""
    ome: OmeImage | None
    warnings: tuple[str, ...]

    @property
    def first(self) -> tifffile.TiffPage:
        """The first directory of level 0."""
        return self.levels[0][0]


def choose_picture(pages: Sequence[tifffile.TiffPage]) -> Picture:
    """Return the largest picture among a file's directories (at least one)."""
    ome, warnings = _ome_image(pages)
    slides = [page for page in pages if not is_label_or_macro(page)]
    first = max(slides or pages, key=lambda page: (page.imagewidth * page.imagelength, -page.index))
    if ome is not None:
        first = next((page for page in pages[min(ome.directories) :] if _size(page) == (ome.width, ome.height)), first)
    if ome is not None and _size(first) != (ome.width, ome.height):
        warnings = (*warnings, f"its OME-XML describes {ome.width} x {ome.height} px, which no picture in it has")
        ome = None
    planes = _planes(pages, first, ome)
    levels, used = _levels(pages, planes)
    same = [page for page in pages if _size(page) == _size(first) and not page.is_reduced and not _is_mask(page)]
    stack = 1 if len(planes) > 1 else max(len(same), first.imagedepth, _imagej_stack(first))
    if ome is not None:
        stack = ome.stack if len(planes) > 1 else max(ome.stack, 1 if first.samplesperpixel > 1 else stack)
        if first.samplesperpixel == 1 and len(planes) == 1:
            stack = max(stack, ome.channels)
    known = {id(page) for page in used}
    others = tuple(
        f"directory {page.index} of {page.imagewidth} x {page.imagelength} px"
        for page in pages
        if id(page) not in known and not _is_mask(page)
    )
    tags = resolution_mpp(first)
    if ome is None or ome.mpp is None:
        return Picture(levels, others, stack, tags, ome, warnings)
    if tags is not None and is_plausible(tags[0]) and abs(ome.mpp[0] / tags[0] - 1.0) > MPP_TOLERANCE:
        note = (
            f"its OME-XML gives {ome.mpp[0]:g} um/px, its resolution tags {tags[0]:g}; the OME-XML's is its own um/px"
        )
        warnings = (*warnings, note)
    return Picture(levels, others, stack, ome.mpp, ome, warnings)


def is_label_or_macro(page: tifffile.TiffPage) -> bool:
    """Return whether a directory is marked as a label or a macro image, as Aperio marks them.

    The macro image has NewSubfileType 9, and the second line of either description begins with its name.
    """
    lines = page.description.splitlines()[1:2] if page.description.startswith("Aperio") else []
    return page.subfiletype == _MACRO or any(line.lower().startswith(("label ", "macro ")) for line in lines)


def _ome_image(pages: Sequence[tifffile.TiffPage]) -> tuple[OmeImage | None, tuple[str, ...]]:
    """Return the largest picture of the file's OME-XML, and a warning if the XML cannot be used."""
    if not is_ome(pages[0].description):
        return None, ()
    try:
        images = [image for image in read_ome(pages[0].description) if image.directories]
    except ValueError as error:
        return None, (f"its OME-XML was not used: {error}",)
    return max(images, key=lambda image: image.width * image.height, default=None), ()


def _planes(pages: Sequence[tifffile.TiffPage], first: tifffile.TiffPage, ome: OmeImage | None) -> Directories:
    """Return the directories of level 0: three if OME-XML says that three grey ones are channels of one picture."""
    if ome is None or ome.channels != RGB_PLANES or ome.stack != 1 or first.samplesperpixel != 1:
        return (first,)
    planes = tuple(pages[number] for number in ome.directories if number < len(pages))
    is_whole = len(planes) == RGB_PLANES and len({page.index for page in planes}) == RGB_PLANES
    if ome.is_other_colours or not is_whole or any(page.hash != first.hash for page in planes):
        return (first,)
    return planes


def _levels(
    pages: Sequence[tifffile.TiffPage], planes: Directories
) -> tuple[tuple[Directories, ...], list[tifffile.TiffPage]]:
    """Return all levels of a picture, the finest first, and the top directories among them."""
    first = planes[0]
    below = list(zip(*(sub_directories(page) for page in planes), strict=False))
    if len(planes) == 1:
        others = [page for page in pages if page is not first and not is_label_or_macro(page)]
        reduced = [page for page in others if "NewSubfileType" in page.tags and page.is_reduced]
        below += [(page,) for page in reduced]
    coarser = [level for level in below if all(_is_level_of(page, first) for page in level)]
    sizes: dict[int, Directories] = {}
    for level in coarser:
        sizes.setdefault(level[0].imagewidth, level)
    finest_first = sorted(sizes.values(), key=lambda level: -level[0].imagewidth)
    return (planes, *finest_first), [page for level in (planes, *coarser) for page in level]


def _is_level_of(page: tifffile.TiffPage, first: tifffile.TiffPage) -> bool:
    """Return whether a directory can be a coarser level: smaller, of the same shape, with the same values a pixel."""
    if not (0 < page.imagewidth < first.imagewidth and 0 < page.imagelength < first.imagelength):
        return False
    if page.is_tiled != first.is_tiled or page.samplesperpixel != first.samplesperpixel:
        return False
    across, down = first.imagewidth / page.imagewidth, first.imagelength / page.imagelength
    return abs(across / down - 1.0) <= 0.01 + 1.5 / min(page.imagewidth, page.imagelength)


def _imagej_stack(page: tifffile.TiffPage) -> int:
    """Return the number of pictures that ImageJ stores behind one directory."""
    text = imagej_fields(page.description).get("images", "1")
    return int(text) if text.isdigit() and len(text) < 10 else 1  # noqa: PLR2004 -- digits


def _is_mask(page: tifffile.TiffPage) -> bool:
    return bool(page.subfiletype & _MASK)


def _size(page: tifffile.TiffPage) -> tuple[int, int]:
    return page.imagewidth, page.imagelength
