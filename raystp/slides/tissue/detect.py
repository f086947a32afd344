"""Where tissue is on a slide's thumbnail, and where ink is: what is stained, or textured and faintly stained.

The slide's own glass is found first (bright, flat, nearly colourless) and every colour is taken relative to it. Then

1. *stained*: saturation above Otsu's threshold (1979). He splits any picture in two, all glass and all tissue too, so
   his threshold is kept to a range between what eosin leaves on glass as a smooth halo and what tissue has.
2. *textured*: fat and pale tissue are as pale as that halo, but they have membranes and nuclei; the halo is smooth.
3. The gaps of a fat cell's width between such pixels are closed: fat is a net of membranes around clear drops.
4. Ink (blue, green, black and red felt pens, the black borders of a scan) is cut out, specks and pinholes go.

Dust, the edge of a coverslip and printed marks are textured too, but grey. What the rule cannot tell apart: pale red
ink from eosin, a pool of dense blood from red ink, and a picture that is pale stain all over from glass.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from raystp.slides.tissue.morphology import closed, small_parts, smooth, widened

THRESHOLDS = (26, 52)
"""Saturation (of 255) that is tissue for certain above the second, and for no picture below the first, by itself.

On six real sections 99 % of the glass, with the halo that eosin leaves around tissue, is below 24."""

TEXTURE = 4
"""Contrast of neighbouring pixels that is texture, in hundredths of optical density of green, mean over 3 x 3 px, above
the glass's own (0 or 1 in real thumbnails, more where a camera's noise was not averaged out).

On the glass of five real scans 99 % of the pixels have 2 at most; three quarters of tissue, fat too, have 8 or more."""

FAINT, PURITY = 6, 3
"""Textured tissue has a chroma (of 255, relative to glass) above the first, and above a share of its darkness.

Dye absorbs one colour and lets another through: even where it is faint its chroma is most of its darkness, and in dense
haematoxylin two fifths. Dust and printed marks are dark and grey: about a tenth."""

FAT_UM = 50.0
"""Half of the widest gap that is closed; a fat cell is 50 to 100 um wide."""

WIDEST_GAP = 25
"""Half a gap in px at most: on thumbnails finer than 2 um/px larger drops of fat stay holes."""

SPECK = 1.0 / 8192
"""Share of the picture's area below which tissue is dust, and a hole in tissue is none: 128 px of 1024 x 1024."""

FLAT, BRIGHT, GLASSY = 3, 120, 5
"""Glass has a contrast of at most the first, a strongest colour above the second, and a chroma below a fifth of it."""

GLASS_SHARE = 1.0 / 200
"""A picture with less than this share of flat, bright, pale pixels has no glass: its colours are taken as they are."""

GLASS_QUANTILE = 0.9
"""Where in the brightness of such pixels the glass is read: above the flat, pale tissue that passes for it."""

BLACK, COLOURLESS = 80, 24
"""A pixel whose strongest colour is below the first, with less than half of it (or the second) between its colours, is
black ink; the darkest nuclei and keratin are purple: 33 between colours of 55."""

GREENER = 5
"""Ink's green is above its red by more than a fifth of its strongest colour; dense haematoxylin reaches a sixth."""

PURE, ALIKE = 0.4, 6
"""Red and blue inks leave one colour: the others are below two fifths of it, and within a sixth of it of each other.

Eosin and haematoxylin leave red and blue. Of the real sections orange-red muscle has no such pixel, dark eosin
and nuclei have single ones, which are too small for strokes."""

RIM = 2
"""Pixels around ink in which its pale edge would pass for stain."""

Levels = UInt8[np.ndarray, "row col"]
Mask = Bool[np.ndarray, "row col"]


@dataclass(frozen=True)
class DetectedTissue:
    """What a thumbnail shows, pixel by pixel; the rest is glass."""

    mask: Mask
    """Tissue to look at."""
    ink: Mask
    """Pen and black border, with their rims."""


def find_tissue(thumbnail: UInt8[np.ndarray, "row col 3"], um_per_px: float) -> DetectedTissue:
    """Say for each pixel of a whole slide's thumbnail whether it shows tissue, or ink; a slide of glass has neither.

    About 20 CPU-ms at 1024 x 1024 px.
    """
    colours = [np.ascontiguousarray(thumbnail[..., colour]) for colour in range(3)]
    texture = _texture(colours[1])
    (red, green, blue), noise = _relative_to_glass(colours, texture)
    strongest = np.maximum(np.maximum(red, green), blue)
    weakest = np.minimum(np.minimum(red, green), blue)
    chroma = strongest - weakest
    smallest = SPECK * strongest.size
    ink = _strokes(_is_ink(red, green, blue), smallest)
    saturation = smooth(_share_of_255(chroma, strongest))
    counts = Image.fromarray(saturation).histogram(Image.fromarray(~ink))
    threshold = min(max(otsu(np.array(counts)), THRESHOLDS[0]), THRESHOLDS[1])
    faint, dark = smooth(chroma), 255 - smooth(weakest)
    coloured = (faint > FAINT) & (faint > dark // PURITY)
    mask = ((saturation > threshold) | ((texture > TEXTURE + noise) & coloured)) & ~ink
    mask &= ~small_parts(mask, smallest)
    mask = closed(mask, min(round(FAT_UM / um_per_px), WIDEST_GAP)) & ~ink
    mask |= small_parts(~mask, smallest) & ~ink
    return DetectedTissue(mask, ink)


def otsu(counts: Int64[np.ndarray, " level"]) -> int:
    """Return the level t that splits a histogram into <= t and > t with the largest variance between them (Otsu 1979).

    Of equal splits the first counts; a histogram of one level, or of nothing, gives 0.
    """
    below = counts.cumsum().astype(np.float64)
    moment = (counts * np.arange(len(counts))).cumsum().astype(np.float64)
    above = below[-1] - below
    apart = (moment[-1] * below - moment * below[-1]) ** 2
    return int(np.argmax(np.divide(apart, below * above, out=np.zeros_like(apart), where=below * above > 0)))


def _texture(green: Levels) -> Levels:
    """Return the range within 2 x 2 px of green's optical density in hundredths, smoothed."""
    light = np.maximum(np.arange(256), 1) / 255.0
    density = np.rint(-100.0 * np.log(light)).clip(0, 255).astype(np.uint8)[np.pad(green, ((0, 1), (0, 1)), "edge")]
    high, low = np.maximum(density[1:], density[:-1]), np.minimum(density[1:], density[:-1])
    high, low = np.maximum(high[:, 1:], high[:, :-1]), np.minimum(low[:, 1:], low[:, :-1])
    return smooth(high - low)


def _relative_to_glass(colours: list[Levels], texture: Levels) -> tuple[list[Levels], int]:
    """Return red, green and blue as shares (of 255) of the glass's own, and the glass's median texture, its noise.

    Without glass the colours are as they are, and no noise is known.
    """
    strongest = np.maximum(np.maximum(*colours[:2]), colours[2])
    chroma = strongest - np.minimum(np.minimum(*colours[:2]), colours[2])
    flat = Image.fromarray((texture <= FLAT) & (strongest > BRIGHT) & (chroma < strongest // GLASSY))
    counts = [np.array(Image.fromarray(one).histogram(flat)) for one in (*colours, texture)]
    if counts[0].sum() < GLASS_SHARE * strongest.size:
        return colours, 0
    lights = [max(_quantile(one, GLASS_QUANTILE), 1) for one in counts[:3]]
    shares = [np.minimum(np.arange(256) * 255.0 / light, 255.0).astype(np.uint8) for light in lights]
    return [share[one] for share, one in zip(shares, colours, strict=True)], _quantile(counts[3], 0.5)


def _quantile(counts: Int64[np.ndarray, " level"], share: float) -> int:
    return int(np.searchsorted(counts.cumsum(), share * counts.sum()))


def _share_of_255(part: Levels, whole: Levels) -> Levels:
    share: Levels = (part * np.float32(255.0) / np.maximum(whole, 1)).astype(np.uint8)
    return share


def _is_ink(red: Levels, green: Levels, blue: Levels) -> Mask:
    """Say which pixels have the colour of ink: black, greener than red, or of one colour alone."""
    strongest = np.maximum(np.maximum(red, green), blue)
    chroma = strongest - np.minimum(np.minimum(red, green), blue)
    black = (strongest < BLACK) & (chroma < np.maximum(strongest // 2, COLOURLESS))
    greener = (green > red) & (green - red > strongest // GREENER)
    most = (strongest * np.float32(PURE)).astype(np.uint8)
    alike = strongest // ALIKE
    reddish = (np.maximum(green, blue) < most) & (np.maximum(green, blue) - np.minimum(green, blue) < alike)
    bluish = (np.maximum(green, red) < most) & (np.maximum(green, red) - np.minimum(green, red) < alike)
    ink: Mask = black | greener | reddish | bluish
    return ink


def _strokes(ink: Mask, smallest: float) -> Mask:
    """Return ink's larger parts and their rim; what is smaller are dark nuclei."""
    if np.count_nonzero(ink) < smallest:
        return np.zeros_like(ink)
    return widened(ink & ~small_parts(ink, smallest), RIM)
