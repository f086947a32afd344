"""The um/px in a TIFF directory: its resolution tags, and ImageJ's unit for them."""

import codecs
import re

import tifffile
from tifffile import RESUNIT

_UNIT_UM = {
    "pm": 1e-6,
    "å": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "micron": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "meter": 1e6,
    "in": 25_400.0,
    "inch": 25_400.0,
    "inches": 25_400.0,
}

_RESOLUTION_UM = {
    RESUNIT.INCH: 25_400.0,
    RESUNIT.CENTIMETER: 10_000.0,
    RESUNIT.MILLIMETER: 1000.0,
    RESUNIT.MICROMETER: 1.0,
}

_AXES = 2


def unit_um(text: str) -> float | None:
    """Return the um in a unit of length, however it is spelled; None if it is not a length (`pixel`)."""
    if "\\u" in text:  # ImageJ writes letters beyond ASCII like this
        text = codecs.decode(text.encode("ascii", "ignore"), "unicode_escape")
    text = text.strip().lower().replace("â", "").replace("µ", "u").replace("μ", "u").replace("metre", "meter")
    return _UNIT_UM.get(text, _UNIT_UM.get(text.removesuffix("s")))


def imagej_fields(description: str) -> dict[str, str]:
    """Return the fields of ImageJ's description, `name=value` in lines; none for any other description."""
    if not description.startswith("ImageJ="):
        return {}
    fields = (line.partition("=") for line in description.splitlines())
    return {name.strip(): value.strip() for name, equals, value in fields if equals}


def resolution_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return the um/px from a directory's resolution tags, as OpenSlide computes it; ImageJ's unit comes first."""
    values = [page.tags[name].value for name in ("XResolution", "YResolution") if name in page.tags]
    if len(values) < _AXES or not all(_is_ratio(value) for value in values):
        return None
    fields = imagej_fields(page.description)
    if fields:
        unit = unit_um(fields.get("unit", ""))
    else:
        unit = _RESOLUTION_UM.get(page.tags["ResolutionUnit"].value if "ResolutionUnit" in page.tags else RESUNIT.INCH)
    if unit is None:
        return None
    across, down = (unit * below / above for above, below in values)
    return across, down


def aperio_mpp(description: str) -> tuple[float, float] | None:
    """Return the um/px in Aperio's description, `...|AppMag = 20|MPP = 0.4990|...`; the last one if there are two."""
    values = re.findall(r"\|\s*MPP\s*=([^|]*)", description)
    try:
        mpp = float(values[-1].strip().replace(",", "."))
    except (IndexError, ValueError):
        return None
    return mpp, mpp


def _is_ratio(value: object) -> bool:
    """Return whether a tag's value is a fraction of two numbers above 0."""
    return isinstance(value, tuple) and len(value) == _AXES and all(isinstance(n, int) and n > 0 for n in value)
