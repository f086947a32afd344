"""The checks that every slide passes, whatever reader opens it.

A reader states what the file's headers say as `SlideFacts`. Each check returns the reason to refuse the slide, or None;
each note returns a warning, or None. A slide is the largest picture of its file, in the frame of its stored pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

from raystp.errors import SlideError
from raystp.slides.readers.scale import SQUARE_TOLERANCE
from raystp.units import is_plausible

MAX_SAMPLES = 5
"""RGB, alpha and one more; a header with more is damaged, or not of an H&E image."""

LEVEL_MPP_TOLERANCE = 0.05
"""A coarser level's um/px may differ by 5 % from level 0's times its downsample, or from level 0's itself."""

_TO_RGB = "save it as one 8-bit RGB image"


@dataclass(frozen=True)
class SlideFacts:
    """What a file's headers state about the picture that is taken for the slide."""

    kind: str
    """`TIFF`, `PNG`, `JPEG`, or OpenSlide's name of the format."""
    width: int
    height: int
    bits: tuple[int, ...] = (8, 8, 8)
    """Bits of each value of a pixel."""
    number: str = "uint8"
    """Type of the values."""
    colour: str = "RGB"
    """Colour model: RGB, YCBCR, MINISBLACK, MINISWHITE, PALETTE; others are refused."""
    compression: str = "NONE"
    stack: int = 1
    """Pictures of this size that are not its levels."""
    orientation: int = 1
    """Of TIFF or EXIF: 1 is the stored frame."""
    others: tuple[str, ...] = ()
    """Other pictures in the file, which are not taken."""
    mpp: tuple[float, float] | None = None
    """The slide's own um/px along x and y."""
    dpi_mpp: float | None = None
    """um/px by a dpi tag, which is not the slide's own."""
    magnification: str | None = None
    """The objective, where there is no um/px."""
    level_mpp: tuple[tuple[float, float], ...] = ()
    """Downsample and um/px along x of each coarser level that gives one."""
    is_mpp_given: bool = False
    """Whether the slide table has the um/px, which then decides."""
    unnamed_planes: bool = False
    """Whether three grey pictures are taken for red, green and blue without names that say so."""
    notes: tuple[str, ...] = ()
    """Warnings of the reader."""


def has_a_size(facts: SlideFacts) -> str | None:
    """Refuse a picture without pixels."""
    if min(facts.width, facts.height) >= 1:
        return None
    return f"has a damaged header: its size is {facts.width} x {facts.height} px"


def has_8_bits(facts: SlideFacts) -> str | None:
    """Refuse 12 and 16 bits, signed values and floats: how they map to 8 bits is not known here."""
    grey_bits = facts.bits == (1,) or (facts.colour == "PALETTE" and max(facts.bits) <= 8)  # noqa: PLR2004
    if facts.number in ("uint8", "bool") and (grey_bits or set(facts.bits) == {8}):
        return None
    bits = "/".join(str(bits) for bits in sorted(set(facts.bits)))
    return f"is a {facts.kind} of {facts.number} values with {bits} bits, not 8-bit grey or RGB; {_TO_RGB}"


def has_few_channels(facts: SlideFacts) -> str | None:
    """Refuse more values a pixel than RGB with alpha has, and two."""
    if len(facts.bits) <= MAX_SAMPLES:
        return None
    return f"is a {facts.kind} with {len(facts.bits)} values a pixel, allowed are up to {MAX_SAMPLES}; {_TO_RGB}"


def has_known_colours(facts: SlideFacts) -> str | None:
    """Refuse colour models other than grey, palette and RGB."""
    if facts.colour in ("MINISBLACK", "MINISWHITE", "PALETTE", "RGB"):
        return None
    if facts.colour == "YCBCR" and facts.compression in ("JPEG", "ALT_JPEG", "OJPEG", "APERIO_JP2000_YCBC"):
        return None
    model = "CMYK (SEPARATED)" if facts.colour == "SEPARATED" else facts.colour
    if facts.colour == "YCBCR":
        model = f"YCBCR, compressed as {facts.compression}"
    return f"is a {facts.kind} of colour model {model}; {_TO_RGB}"


def is_one_picture(facts: SlideFacts) -> str | None:
    """Refuse focal planes, time points and channels stored as a stack: none of them is the slide."""
    if facts.stack <= 1:
        return None
    return (
        f"is a {facts.kind} with {facts.stack} pictures of {facts.width} x {facts.height} px, a stack and not one "
        f"image (channels, focal planes or time points); choose one, or merge the channels, and {_TO_RGB}"
    )


def has_levels_of_one_scale(facts: SlideFacts) -> str | None:
    """Refuse a coarser level whose um/px contradicts its size, unless the slide table gives the um/px."""
    return None if facts.is_mpp_given else _level_fault(facts)


SlideCheck = Callable[[SlideFacts], str | None]

SLIDE_CHECKS: tuple[SlideCheck, ...] = (
    has_a_size,
    has_8_bits,
    has_few_channels,
    has_known_colours,
    is_one_picture,
    has_levels_of_one_scale,
)


def note_others(facts: SlideFacts) -> str | None:
    """Name the pictures of the file that are not the slide."""
    if not facts.others:
        return None
    shown = ", ".join(facts.others[:4]) + (f" and {len(facts.others) - 4} more" if len(facts.others) > 4 else "")  # noqa: PLR2004
    return f"the largest picture of {facts.width} x {facts.height} px is the slide; not used: {shown}"


def note_orientation(facts: SlideFacts) -> str | None:
    """Say that a picture is not turned as a viewer may turn it."""
    if facts.orientation == 1:
        return None
    return (
        f"its orientation tag is {facts.orientation} and is not applied: coordinates are in the stored pixels, "
        "which a viewer may show turned or mirrored"
    )


def note_pixel_shape(facts: SlideFacts) -> str | None:
    """Say that pixels are not square although the slide table gives one um/px."""
    if facts.mpp is None or not facts.is_mpp_given or not all(is_plausible(mpp) for mpp in facts.mpp):
        return None
    across, down = facts.mpp
    if abs(across / down - 1.0) <= SQUARE_TOLERANCE:
        return None
    return f"it gives {across:g} um/px along x and {down:g} along y: its pixels are not square"


def note_level_scale(facts: SlideFacts) -> str | None:
    """Say that a level's um/px contradicts its size."""
    fault = _level_fault(facts) if facts.is_mpp_given else None
    return None if fault is None else f"it {fault}"


def note_grey(facts: SlideFacts) -> str | None:
    """Say that a picture is grey, or that its planes are taken for red, green and blue."""
    if facts.unnamed_planes:
        return "its three grey planes are taken for red, green and blue, which its OME-XML does not name"
    if facts.colour in ("MINISBLACK", "MINISWHITE"):
        return "it is grey, not RGB: the encoders were trained on colour"
    return None


SLIDE_NOTES: tuple[SlideCheck, ...] = (note_others, note_orientation, note_pixel_shape, note_level_scale, note_grey)


def check_slide(where: str, facts: SlideFacts) -> list[str]:
    """Return the slide's warnings.

    Raises:
        SlideError: a check fails; the message begins with `where`.
    """
    for check in SLIDE_CHECKS:
        fault = check(facts)
        if fault is not None:
            msg = f"{where} {fault}"
            raise SlideError(msg)
    return [*facts.notes, *(note for find in SLIDE_NOTES if (note := find(facts)) is not None)]


def _level_fault(facts: SlideFacts) -> str | None:
    if facts.mpp is None or not is_plausible(facts.mpp[0]):
        return None
    for downsample, mpp in facts.level_mpp:
        ratio = mpp / facts.mpp[0]
        if all(abs(ratio / allowed - 1.0) > LEVEL_MPP_TOLERANCE for allowed in (1.0, downsample)):
            return (
                f"gives {facts.mpp[0]:g} um/px, and {mpp:g} for a level {downsample:.3g} times smaller, which should "
                f"be {facts.mpp[0] * downsample:g}; set the right um/px in the column `mpp` of the slide table"
            )
    return None
