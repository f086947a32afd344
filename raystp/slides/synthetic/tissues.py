"""Tissue types of synthetic slides, each with its own nuclei and texture, and stains, one per patient.

Sizes are micrometres of tissue and amounts are optical densities, so a slide looks the same at any um/px. The values
follow the literature on human tissue at 20x: nuclei of 5-12 um, 300 to 9,000 of them per mm2.
"""

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class TissueType:
    """The appearance of one tissue type under the microscope."""

    name: str
    texture: str
    """Key of `texture.TEXTURES`."""
    nuclei_per_mm2: float
    nucleus_um: float
    """Mean long axis of a nucleus."""
    elongation: float
    """Long axis over short axis."""
    darkness: float
    """Optical density of haematoxylin inside a nucleus."""
    pallor: float
    """How much paler a nucleus is at its centre than at its rim, 0 to 1."""
    eosin: float
    """Optical density of eosin between nuclei."""
    haze: float
    """Optical density of haematoxylin between nuclei: the purple of cytoplasm rich in RNA."""


TISSUES: tuple[TissueType, ...] = (
    TissueType("tumour", "solid", 4200.0, 11.0, 1.25, 0.80, 0.45, 0.36, 0.20),
    TissueType("stroma", "fibres", 1300.0, 13.0, 3.40, 0.85, 0.10, 0.50, 0.02),
    TissueType("immune", "solid", 9000.0, 6.5, 1.08, 1.15, 0.05, 0.22, 0.16),
    TissueType("fat", "holes", 320.0, 9.0, 2.80, 0.95, 0.05, 0.42, 0.02),
    TissueType("gland", "rings", 3300.0, 8.5, 1.55, 0.95, 0.20, 0.42, 0.13),
)
"""Type k of a tissue map is `TISSUES[k - 1]`; 0 is glass."""


@dataclass(frozen=True)
class Stain:
    """The colours of one laboratory's stain and one scanner's lamp."""

    haematoxylin: Colour
    """Optical density in red, green and blue of one unit of haematoxylin."""
    eosin: Colour
    glass: Colour
    """Brightness of empty glass, 0 to 255."""


HAEMATOXYLIN: Colour = (0.95, 1.02, 0.42)
EOSIN: Colour = (0.10, 1.00, 0.42)
"""Directions after Ruifrok and Johnston (2001), eosin with the higher blue absorption of phloxine-free stains."""


def draw_stain(rng: np.random.Generator) -> Stain:
    """Draw one patient's stain: hue and strength of each dye, and the lamp, vary by about a tenth, as between labs."""

    def dye(reference: Colour) -> Colour:
        strength = rng.lognormal(0.0, 0.12)
        red, green, blue = (max(0.02, value * strength + rng.normal(0.0, 0.04)) for value in reference)
        return red, green, blue

    lamp, tint = rng.uniform(238.0, 248.0), rng.normal(0.0, 1.5, 3)
    red, green, blue = (float(np.clip(lamp + value, 230.0, 252.0)) for value in tint)
    return Stain(haematoxylin=dye(HAEMATOXYLIN), eosin=dye(EOSIN), glass=(red, green, blue))
