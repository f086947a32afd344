"""Detect tissue and pen marks on a slide's thumbnail: tissue is stained, or textured and faintly stained.

The slide's own glass is found first (bright, flat, nearly colourless), and every colour is taken relative to it. Then

1. *Stained*: saturation above Otsu's threshold (1979). Otsu splits every image in two, also one of only glass or only
   tissue. So the threshold is limited to a range between the smooth halo that eosin leaves on glass, and tissue.
2. *Textured*: fat and pale tissue are as pale as that halo, but they have membranes and nuclei; the halo is smooth.
3. Gaps of a fat cell's width between such pixels are closed: fat is a net of membranes around clear drops.
4. Pen marks (blue, green, black and red felt pens, the black borders of a scan) are cut out; specks and pinholes are
   removed.

Dust, the edge of a coverslip and printed labels are textured too, but grey. The rule cannot separate pale red pen from
eosin, or a pool of dense blood from red pen. It takes an image that is pale stain everywhere for glass.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from raystp.slides.tissue.morphology import close_gaps, dilate, mean_3x3, small_parts

THRESHOLDS = (26, 52)
"""Saturation (of 255): above the second a pixel is always tissue, below the first never by saturation alone.

On six real sections 99 % of the glass, with the halo that eosin leaves around tissue, is below 24."""

TEXTURE = 4
"""Contrast of neighbouring pixels that counts as texture, above the glass's own, in hundredths of optical density of
green, mean over 3 x 3 px. The glass's own is 0 or 1 in real thumbnails, more where camera noise was not averaged out.

On the glass of five real scans 99 % of the pixels have 2 at most. Three quarters of tissue, fat too, have 8 or more."""

FAINT, PURITY = 6, 3
"""Textured tissue has a chroma (of 255, relative to glass) above the first, and above its darkness over the second.

Dye absorbs one colour and transmits another: even faint dye has a chroma of most of its darkness, and dense
haematoxylin of two fifths. Dust and printed labels are dark and grey: about a tenth."""

FAT_GAP_UM = 50.0
"""Half of the widest gap that is closed; a fat cell is 50 to 100 um wide."""

MAX_GAP_PX = 25
"""Half of the widest gap in px: on thumbnails finer than 2 um/px larger drops of fat stay holes."""

SMALLEST_UM2 = 10_000.0
"""Tissue below this area (100 x 100 um) is dust, and a smaller hole is filled; a tile of 112 um has 12,544."""

PEN_UM2 = 50_000.0
"""A pen's stroke is larger: it is half a mm wide. Smaller parts of a pen's colour are dark nuclei."""

SMALL_SCAN_SHARE = 1.0 / 8192
"""Least share of the image's area for both, where that is less: on a scan of one tile a cell is a piece."""

FLAT, BRIGHT, GLASSY = 3, 120, 5
"""Glass has a contrast of at most the first, a strongest colour above the second, and a chroma below a fifth of it."""

GLASS_SHARE = 1.0 / 200
"""An image with a smaller share of flat, bright, pale pixels has no glass: its colours are used unchanged."""

GLASS_QUANTILE = 0.9
"""Quantile of such pixels' brightness that is taken as the glass: above flat, pale tissue that looks like glass."""

BLACK, COLOURLESS = 80, 24
"""A pixel is black pen if its strongest colour is below the first, with less than half of it (or the second) between
its colours. The darkest nuclei and keratin are purple: 33 between colours of 55."""

GREENER = 5
"""A pen's green is above its red by more than a fifth of its strongest colour; dense haematoxylin reaches a sixth."""

PURE, ALIKE = 0.4, 6
"""Red and blue pens leave one colour: the others are below two fifths of it, and within a sixth of it of each other.

Eosin and haematoxylin leave red and blue. On the real sections orange-red muscle has no such pixel. Dark eosin and
nuclei have single ones, which are too small for strokes."""

PEN_RIM_PX = 2
"""Pixels around a pen mark whose pale edge would look like stain."""

Levels = UInt8[np.ndarray, "row col"]
Mask = Bool[np.ndarray, "row col"]


@dataclass(frozen=True)
class DetectedTissue:
    """The tissue and the pen marks of a thumbnail; all other pixels are glass."""

    mask: Mask
    pen: Mask
    """Pen marks and black borders, with their rims."""


def smallest_piece_um2(shape: tuple[int, ...], um_per_px: float) -> float:
    """Return the area in um^2 below which a piece of tissue is dust, on a scan as large as an image of `shape`."""
    return min(SMALLEST_UM2, SMALL_SCAN_SHARE * shape[0] * shape[1] * um_per_px**2)


def detect_tissue(thumbnail: UInt8[np.ndarray, "row col 3"], um_per_px: float) -> DetectedTissue:
    """Return the pixels of a slide's thumbnail that are tissue, and those that are pen; glass is neither.

    30 to 45 CPU-ms at 1024 x 1024 px. Use `tissue_image` for a thumbnail on which small pieces can be seen.
    """
    colours = [np.ascontiguousarray(thumbnail[..., colour]) for colour in range(3)]
    texture = _texture(colours[1])
    (red, green, blue), noise = _relative_to_glass(colours, texture)
    strongest = np.maximum(np.maximum(red, green), blue)
    weakest = np.minimum(np.minimum(red, green), blue)
    chroma = strongest - weakest
    smallest = smallest_piece_um2(thumbnail.shape, um_per_px) / um_per_px**2
    stroke = min(PEN_UM2 / um_per_px**2, SMALL_SCAN_SHARE * strongest.size)
    pen = _strokes(_has_pen_colour(red, green, blue), stroke)
    saturation = mean_3x3(_share_of_255(chroma, strongest))
    counts = Image.fromarray(saturation).histogram(Image.fromarray(~pen))
    threshold = min(max(otsu(np.array(counts)), THRESHOLDS[0]), THRESHOLDS[1])
    faint, dark = mean_3x3(chroma), 255 - mean_3x3(weakest)
    coloured = (faint > FAINT) & (faint > dark // PURITY)
    mask = ((saturation > threshold) | ((texture > TEXTURE + noise) & coloured)) & ~pen
    mask &= ~small_parts(mask, smallest)
    mask = close_gaps(mask, min(round(FAT_GAP_UM / um_per_px), MAX_GAP_PX)) & ~pen
    mask |= small_parts(~mask, smallest) & ~pen
    return DetectedTissue(mask, pen)


def otsu(counts: Int64[np.ndarray, " level"]) -> int:
    """Return the level t that splits a histogram into <= t and > t with the largest variance between them (Otsu 1979).

    Of equal splits the first is returned; a histogram with a single level, or an empty one, gives 0.
    """
    below = counts.cumsum().astype(np.float64)
    moment = (counts * np.arange(len(counts))).cumsum().astype(np.float64)
    above = below[-1] - below
    apart = (moment[-1] * below - moment * below[-1]) ** 2
    return int(np.argmax(np.divide(apart, below * above, out=np.zeros_like(apart), where=below * above > 0)))


def _texture(green: Levels) -> Levels:
    """Return the range of green's optical density in 2 x 2 px, in hundredths, smoothed."""
    light = np.maximum(np.arange(256), 1) / 255.0
    density = np.rint(-100.0 * np.log(light)).clip(0, 255).astype(np.uint8)[np.pad(green, ((0, 1), (0, 1)), "edge")]
    high, low = np.maximum(density[1:], density[:-1]), np.minimum(density[1:], density[:-1])
    high, low = np.maximum(high[:, 1:], high[:, :-1]), np.minimum(low[:, 1:], low[:, :-1])
    return mean_3x3(high - low)


def _relative_to_glass(colours: list[Levels], texture: Levels) -> tuple[list[Levels], int]:
    """Return red, green and blue as shares (of 255) of the glass's own, and the glass's median texture, its noise.

    Without glass the colours are returned unchanged, with a noise of 0.
    """
    strongest = np.maximum(np.maximum(*colours[:2]), colours[2])
    chroma = strongest - np.minimum(np.minimum(*colours[:2]), colours[2])
    is_glass = Image.fromarray((texture <= FLAT) & (strongest > BRIGHT) & (chroma < strongest // GLASSY))
    counts = [np.array(Image.fromarray(one).histogram(is_glass)) for one in (*colours, texture)]
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


def _has_pen_colour(red: Levels, green: Levels, blue: Levels) -> Mask:
    """Return which pixels have the colour of a pen: black, greener than red, or only one colour."""
    strongest = np.maximum(np.maximum(red, green), blue)
    chroma = strongest - np.minimum(np.minimum(red, green), blue)
    black = (strongest < BLACK) & (chroma < np.maximum(strongest // 2, COLOURLESS))
    greener = (green > red) & (green - red > strongest // GREENER)
    most = (strongest * np.float32(PURE)).astype(np.uint8)
    alike = strongest // ALIKE
    reddish = (np.maximum(green, blue) < most) & (np.maximum(green, blue) - np.minimum(green, blue) < alike)
    bluish = (np.maximum(green, red) < most) & (np.maximum(green, red) - np.minimum(green, red) < alike)
    pen: Mask = black | greener | reddish | bluish
    return pen


def _strokes(pen: Mask, smallest: float) -> Mask:
    """Return the larger parts of pixels of a pen's colour, with their rim; smaller parts are dark nuclei."""
    if np.count_nonzero(pen) < smallest:
        return np.zeros_like(pen)
    return dilate(pen & ~small_parts(pen, smallest), PEN_RIM_PX)
