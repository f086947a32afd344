"""Read the parts of OME-XML that matter for a slide: sizes, um/px, channels, and the directories of each picture.

The XML comes from the file, so its size is limited, and a document type (which can define entities) is refused.
Format: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from raystp.slides.readers.tiff.lengths import unit_um

MAX_CHARACTERS = 16 << 20
"""OME-XML of a slide has some thousand characters; of a plate with a million planes, some hundred million."""

MAX_PLANES = 4096

MAX_IMAGES = 256
"""Pictures that are looked at, as many as directories of a TIFF."""

MAX_DIGITS = 12

_RGB_COLOURS = (0xFF0000, 0x00FF00, 0x0000FF)

_RGB_NAMES = (("red", "r"), ("green", "g"), ("blue", "b"))


@dataclass(frozen=True)
class OmeImage:
    """One picture of an OME-TIFF."""

    name: str
    width: int
    height: int
    channels: int
    stack: int
    """Focal planes times time points."""
    mpp: tuple[float, float] | None
    """um/px along x and y; None if it gives none, or in a unit that is no length."""
    directories: tuple[int, ...]
    """The TIFF directory of each channel, as far as it is known; one if the channels are interleaved."""
    channel_names: tuple[str, ...]
    channel_colours: tuple[int, ...]
    """RGB of each channel that gives one."""

    @property
    def is_named_rgb(self) -> bool:
        """Return whether the channels are named, or coloured, as red, green and blue."""
        names = tuple(name.strip().lower() for name in self.channel_names)
        if len(names) == len(_RGB_NAMES) and all(n in ok for n, ok in zip(names, _RGB_NAMES, strict=True)):
            return True
        return self.channel_colours == _RGB_COLOURS

    @property
    def is_other_colours(self) -> bool:
        """Return whether the channels have other names or other colours than red, green and blue."""
        named = any(name.strip() and not name.lower().startswith("channel") for name in self.channel_names)
        return (named or len(set(self.channel_colours)) > 1) and not self.is_named_rgb


def is_ome(description: str) -> bool:
    """Return whether a TIFF's description is OME-XML."""
    return description.rstrip()[-16:].endswith("OME>") and "<" in description[:64]


def read_ome(description: str) -> list[OmeImage]:
    """Return the pictures that OME-XML describes; none if it refers to another file for them.

    Raises:
        ValueError: the XML is too long, not well formed, has a document type, or a size that is not a number.
    """
    if len(description) > MAX_CHARACTERS:
        msg = f"it has {len(description)} characters, allowed are {MAX_CHARACTERS}"
        raise ValueError(msg)
    if "<!DOCTYPE" in description or "<!ENTITY" in description:
        msg = "it has a document type, which OME-XML never has"
        raise ValueError(msg)
    try:
        root = ET.fromstring(description)
    except ET.ParseError as error:
        msg = f"it is not well formed: {error}"
        raise ValueError(msg) from None
    images: list[OmeImage] = []
    next_directory = 0
    for element in _named(root, "Image")[:MAX_IMAGES]:
        for pixels in _named(element, "Pixels")[:1]:  # the schema has one
            image = _image(element.get("Name", ""), pixels, next_directory)
            images.append(image)
            next_directory += len(image.directories)
    return images


def _named(element: ET.Element, name: str) -> list[ET.Element]:
    """Return the children with a name, in any namespace."""
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def _image(name: str, pixels: ET.Element, next_directory: int) -> OmeImage:
    sizes = {axis: _whole(pixels.get(f"Size{axis}", "1")) for axis in "XYCZT"}
    channels = _named(pixels, "Channel")
    samples = max((_whole(channel.get("SamplesPerPixel", "1")) for channel in channels), default=1)
    samples = max(1, samples)
    planes = min(MAX_PLANES, max(1, sizes["C"] // samples) * sizes["Z"] * sizes["T"])
    colours = [_whole(text) & 0xFFFFFFFF for channel in channels if (text := channel.get("Color")) is not None]
    return OmeImage(
        name=name,
        width=sizes["X"],
        height=sizes["Y"],
        channels=sizes["C"],
        stack=sizes["Z"] * sizes["T"],
        mpp=_mpp(pixels),
        directories=_directories(_named(pixels, "TiffData"), planes, next_directory),
        channel_names=tuple(channel.get("Name", "") for channel in channels),
        channel_colours=tuple(colour >> 8 for colour in colours),  # stored as RGBA
    )


def _directories(parts: list[ET.Element], planes: int, next_directory: int) -> tuple[int, ...]:
    """Return the directory of each plane; `TiffData` elements without a number mean: one after another."""
    if not any("IFD" in part.attrib for part in parts):
        return tuple(range(next_directory, next_directory + planes))
    found: dict[int, int] = {}
    for part in parts[:MAX_PLANES]:
        first, count = _whole(part.get("IFD", "0")), _whole(part.get("PlaneCount", "1"))
        plane = _whole(part.get("FirstC", "0")) + _whole(part.get("FirstZ", "0")) + _whole(part.get("FirstT", "0"))
        found |= {plane + k: first + k for k in range(min(count, planes - len(found)))}
    return tuple(found[plane] for plane in sorted(found))


def _mpp(pixels: ET.Element) -> tuple[float, float] | None:
    """Return the um/px along x and y; the unit is um where none is given."""
    found: list[float] = []
    for axis in "XY":
        try:
            size = float(pixels.get(f"PhysicalSize{axis}", "").replace(",", "."))
        except ValueError:
            return None
        unit = unit_um(pixels.get(f"PhysicalSize{axis}Unit", "um"))
        if unit is None:
            return None
        found.append(size * unit)
    return found[0], found[1]


def _whole(text: str) -> int:
    """Return a whole number; raises ValueError if it is not one, or is out of the range of any file."""
    number = int(text) if text.strip().lstrip("-").isdecimal() and len(text) <= MAX_DIGITS else None
    if number is None:
        msg = f"it has {text[:20]!r} for a whole number"
        raise ValueError(msg)
    return number
