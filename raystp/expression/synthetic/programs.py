"""Genes planted on morphology: every tissue raises some genes, lowers others, and leaves the null genes alone.

Two things make the truth honest. Every tissue's expected total is the same, bit by bit: were it not, dividing a spot by
its total would carry the morphology into every gene, null genes too. And the noise is fixed here, at values that real
sections show, not at values that a model likes. In four sections of HER2ST (B4, C2-C4; Andersson et al. 2021) the 280
most expressed genes hold .29-.32 of all counts, the logarithm of a spot's total spreads by .59-.65 in the deep sections
(spots above a quarter of the median), and the gamma-Poisson dispersion of genes with 3 or more counts has quartiles
near .04, .08 and .2, what the tissue itself adds included. What is left is a ceiling: on slides of `slides.synthetic`,
over spots with half their disc on tissue, the planted mean itself has a PCC of .31-.34 with log1p CP10k counts, mean
over the planted genes (12 draws of the programs); a model can hardly have more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from raystp.errors import SectionError
from raystp.expression.synthetic.places import PITCH, type_fractions, visium_places

__all__ = [
    "DEPTH_SIGMA",
    "DISPERSION",
    "MEDIAN_UMI",
    "PITCH",
    "Programs",
    "expected_expression",
    "measure",
    "plant_programs",
    "type_fractions",
    "visium_places",
]

MEDIAN_UMI = 1500.0
"""Counts of a median spot over the panel: .3 of the 5,000 that a Visium spot holds over all genes."""
DEPTH_SIGMA = 0.6
"""Spread of the natural logarithm of a spot's library size, whatever tissue it lies on."""
DISPERSION = 0.2
"""Variance of counts = mean + dispersion * mean^2."""
ABUNDANCE_SIGMA = 1.2
"""Spread of the natural logarithm of genes' abundances: the most abundant gene is about 30 times the median."""
FOLDS = (1.5, 4.0)
"""Folds of planted genes, evenly spaced in their logarithm, up and down."""
UP_SHARE = 2 / 3
PARTS = 2**24
"""Abundances are whole parts of this many, so that every sum of them is exact in floating point, in any order."""
FEWEST_TISSUES = 3


@dataclass(frozen=True)
class Programs:
    """Genes and what each tissue makes of them."""

    tissues: tuple[str, ...]
    genes: tuple[str, ...]
    """`TUM_UP01` is raised in the tumour, `TUM_DN01` lowered there, `TUMGLA_UP01` raised in two, `NULL001` in none."""
    relative: Float64[np.ndarray, "type gene"]
    """Share of each gene in a tissue's counts; each row sums to exactly 1."""
    planted: Bool[np.ndarray, " gene"]
    """False for null genes, whose share is the same number in every tissue."""


def plant_programs(
    rng: np.random.Generator, tissues: Sequence[str], *, genes_per_program: int = 30, null_genes: int = 100
) -> Programs:
    """Draw genes and plant one program per tissue, and one that the first and the last tissue share.

    Two thirds of a program's genes are raised and the rest lowered. Abundances are lognormal, and dealt out to the
    programs by rank, so that none outweighs the others. Each tissue's planted genes are then scaled to one common
    total, as the counts of a real spot compete for one library.

    Raises:
        SectionError: fewer than three tissues, names that begin alike, fewer than three genes in a program, or no null
            gene.
    """
    short = _short_names(tissues)
    if genes_per_program < FEWEST_TISSUES or null_genes < 1:
        msg = f"{genes_per_program} genes per program and {null_genes} null genes: at least 3 and 1 are needed"
        raise SectionError(msg)
    homes = [(kind,) for kind in range(len(short))] + [(0, len(short) - 1)]
    fold = _folds(rng, genes_per_program)
    abundance = np.sort(rng.lognormal(0.0, ABUNDANCE_SIGMA, len(homes) * genes_per_program))[::-1]
    dealt = abundance.reshape(
        genes_per_program, len(homes)
    ).T  # (program, gene): each rank goes once round the programs
    level = np.tile(dealt.ravel(), (len(short), 1))
    names: list[str] = []
    for program, home in enumerate(homes):
        own = slice(program * genes_per_program, (program + 1) * genes_per_program)
        level[list(home), own] *= fold
        names += _gene_names("".join(short[kind] for kind in home), fold)
    null = rng.lognormal(0.0, ABUNDANCE_SIGMA, null_genes)
    relative = _balance(level, dealt.sum(), null)
    names += [f"NULL{number:03d}" for number in range(1, null_genes + 1)]
    planted = np.arange(len(names)) < level.shape[1]
    return Programs(tissues=tuple(tissues), genes=tuple(names), relative=relative, planted=planted)


def described(programs: Programs) -> dict[str, str]:
    """Return gene -> a text that says what was planted: the genes of a program share its words, null genes theirs."""
    short = dict(zip(_short_names(programs.tissues), programs.tissues, strict=True))
    texts: dict[str, str] = {}
    for gene in programs.genes:
        prefix, _, rest = gene.partition("_")
        homes = [short[prefix[start : start + 3]] for start in range(0, len(prefix), 3)] if rest else []
        way = "raised" if rest.startswith("UP") else "lowered"
        said = ", ".join(f"{way} {home}" for home in homes) or "no program, alike everywhere"
        texts[gene] = f"{said}, {way} in {' and '.join(homes)}" if homes else said
    return texts


def expected_expression(
    programs: Programs, fractions: Float64[np.ndarray, "spot type"]
) -> Float64[np.ndarray, "spot gene"]:
    """Return each gene's expected share of a spot's counts: the tissues' shares, mixed by area.

    `fractions` are the areas of the tissues under each spot, without glass, in the programs' order; they are divided by
    their sum. A null gene is the same number at every spot, to the last bit.

    Raises:
        SectionError: another number of tissues, or spots without tissue.
    """
    if fractions.shape[1] != len(programs.tissues):
        seen, wanted = fractions.shape[1], len(programs.tissues)
        msg = f"the fractions are of {seen} tissues, the programs of {wanted}; leave glass out"
        raise SectionError(msg)
    total = fractions.sum(axis=1, keepdims=True)
    if not (total > 0.0).all():
        msg = f"{int((total <= 0.0).sum())} of {len(total)} spots have no tissue below them: leave them out first"
        raise SectionError(msg)
    first = programs.relative[0]
    return np.asarray(first + (fractions / total) @ (programs.relative - first))


def measure(
    rng: np.random.Generator,
    expected: Float64[np.ndarray, "spot gene"],
    *,
    median_umi: float = MEDIAN_UMI,
    depth_sigma: float = DEPTH_SIGMA,
    dispersion: float = DISPERSION,
) -> Int64[np.ndarray, "spot gene"]:
    """Draw counts: a lognormal library size per spot, then gamma-Poisson counts around size times expected share.

    The library size depends on nothing but chance. `dispersion` 0 gives Poisson counts.
    """
    size = median_umi * rng.lognormal(0.0, depth_sigma, (len(expected), 1))
    mean = size * expected
    if dispersion > 0.0:
        mean = mean * rng.gamma(1.0 / dispersion, dispersion, mean.shape)
    return np.asarray(rng.poisson(mean), dtype=np.int64)


def _short_names(tissues: Sequence[str]) -> list[str]:
    """Return the three letters that begin each tissue's genes."""
    short = [tissue[:3].upper() for tissue in tissues]
    if len(short) < FEWEST_TISSUES or len(set(short)) < len(short):
        msg = f"programs need three tissues or more whose first three letters differ, got {list(tissues)}"
        raise SectionError(msg)
    return short


def _folds(rng: np.random.Generator, genes: int) -> Float64[np.ndarray, " gene"]:
    """Return one program's folds; every program has the same, so that none outweighs the others."""
    up = max(1, round(UP_SHARE * genes))
    folds = np.concatenate([np.geomspace(*FOLDS, up), 1.0 / np.geomspace(*FOLDS, genes - up)])
    return rng.permutation(folds)


def _gene_names(prefix: str, fold: Float64[np.ndarray, " gene"]) -> list[str]:
    up, rank = fold > 1.0, np.where(fold > 1.0, np.cumsum(fold > 1.0), np.cumsum(fold <= 1.0))
    return [
        f"{prefix}_{'UP' if raised else 'DN'}{number:02d}" for raised, number in zip(up, rank.tolist(), strict=True)
    ]


def _balance(
    level: Float64[np.ndarray, "type planted"], planted_total: float, null: Float64[np.ndarray, " null"]
) -> Float64[np.ndarray, "type gene"]:
    """Return shares in whole parts: planted genes scaled to one total in every tissue, null genes untouched."""
    null_parts = np.maximum(np.floor(PARTS * null / (planted_total + null.sum())), 1.0)
    room = PARTS - null_parts.sum()
    parts = np.floor(level * room / level.sum(axis=1, keepdims=True))
    parts[:, 0] += room - parts.sum(axis=1)  # the most abundant planted gene takes what rounding left, < 1 part a gene
    return np.concatenate([parts, np.tile(null_parts, (len(level), 1))], axis=1) / PARTS
