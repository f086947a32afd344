"""Simulated genes: each tissue raises some genes, lowers others, and does not affect the null genes.

Every tissue has the same expected total, bit by bit. Otherwise normalising a spot by its total would carry the
morphology into every gene, also into null genes.

The noise is fixed at values measured in real sections. In four sections of HER2ST (B4, C2-C4; Andersson et al. 2021)
the 280 most expressed genes hold .29-.32 of all counts. The logarithm of a spot's total has a standard deviation of
.59-.65 in the deep sections (spots above a quarter of the median). The gamma-Poisson dispersion of genes with 3 or more
counts has quartiles near .04, .08 and .2, including the variance of the tissue itself.

The noise limits the score that a model can reach: the simulated ground truth itself has a PCC of .31-.34 with log1p
CP10k counts. This is the mean over the planted genes in 12 draws of the programs, on slides of `slides.synthetic`, over
spots with half their disc on tissue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from raystp.errors import SectionError

MEDIAN_UMI = 1500.0
"""Median counts of a spot over the panel: .3 of the 5,000 that a Visium spot has over all genes."""
DEPTH_SIGMA = 0.6
"""Standard deviation of the natural logarithm of a spot's library size, the same on every tissue."""
DISPERSION = 0.2
"""Variance of counts = mean + dispersion * mean^2."""
ABUNDANCE_SIGMA = 1.2
"""Standard deviation of the natural logarithm of genes' abundances; the largest is about 30 times the median."""
FOLDS = (1.5, 4.0)
"""Range of the fold changes of planted genes, up and down, evenly spaced in their logarithm."""
UP_SHARE = 2 / 3
"""Share of a program's genes that are raised; the others are lowered."""
PARTS = 2**24
"""Abundances are integer multiples of 1 / PARTS, so that sums of them are exact in floating point, in any order."""
MIN_TISSUES = 3


@dataclass(frozen=True)
class Programs:
    """Genes and their share of the counts in each tissue."""

    tissues: tuple[str, ...]
    genes: tuple[str, ...]
    """`TUM_UP01` is raised in the tumour, `TUM_DN01` lowered there, `TUMGLA_UP01` raised in two; `NULL001` is a null
    gene."""
    relative: Float64[np.ndarray, "type gene"]
    """Share of each gene in the counts of a tissue; each row sums to exactly 1."""
    planted: Bool[np.ndarray, " gene"]
    """False for null genes, whose share is the same number in every tissue."""


def plant_programs(
    rng: np.random.Generator, tissues: Sequence[str], *, genes_per_program: int = 30, null_genes: int = 100
) -> Programs:
    """Draw genes: one program per tissue, one program that the first and the last tissue share, and null genes.

    Two thirds of a program's genes are raised and the others lowered. Abundances are lognormal and distributed to the
    programs by rank, so that all programs have similar totals. The planted genes of each tissue are then scaled to one
    common total, because the counts of a real spot compete for one library.

    Raises SectionError for fewer than three tissues, tissues whose names begin alike, fewer than three genes in a
    program, or no null gene.
    """
    short = _short_names(tissues)
    if genes_per_program < MIN_TISSUES or null_genes < 1:
        msg = f"{genes_per_program} genes per program and {null_genes} null genes: expected at least 3 and 1"
        raise SectionError(msg)
    tissues_of = [(kind,) for kind in range(len(short))] + [(0, len(short) - 1)]
    fold = _folds(rng, genes_per_program)
    abundance = np.sort(rng.lognormal(0.0, ABUNDANCE_SIGMA, len(tissues_of) * genes_per_program))[::-1]
    # (program, gene): consecutive ranks go to consecutive programs.
    by_program = abundance.reshape(genes_per_program, len(tissues_of)).T
    level = np.tile(by_program.ravel(), (len(short), 1))
    names: list[str] = []
    for program, raised_in in enumerate(tissues_of):
        own = slice(program * genes_per_program, (program + 1) * genes_per_program)
        level[list(raised_in), own] *= fold
        names += _gene_names("".join(short[kind] for kind in raised_in), fold)
    null = rng.lognormal(0.0, ABUNDANCE_SIGMA, null_genes)
    relative = _balance(level, by_program.sum(), null)
    names += [f"NULL{number:03d}" for number in range(1, null_genes + 1)]
    planted = np.arange(len(names)) < level.shape[1]
    return Programs(tissues=tuple(tissues), genes=tuple(names), relative=relative, planted=planted)


def gene_descriptions(programs: Programs) -> dict[str, str]:
    """Return gene -> a text about its program: the genes of one program have the same words, so have the null genes."""
    short = dict(zip(_short_names(programs.tissues), programs.tissues, strict=True))
    texts: dict[str, str] = {}
    for gene in programs.genes:
        prefix, _, rest = gene.partition("_")
        tissues = [short[prefix[start : start + 3]] for start in range(0, len(prefix), 3)] if rest else []
        direction = "raised" if rest.startswith("UP") else "lowered"
        words = ", ".join(f"{direction} {tissue}" for tissue in tissues) or "no program, alike everywhere"
        texts[gene] = f"{words}, {direction} in {' and '.join(tissues)}" if tissues else words
    return texts


def expected_expression(
    programs: Programs, fractions: Float64[np.ndarray, "spot type"]
) -> Float64[np.ndarray, "spot gene"]:
    """Return each gene's expected share of a spot's counts: the tissues' shares, weighted by area.

    `fractions` are the areas of the tissues below each spot, without glass, in the programs' order; they are divided by
    their sum. A null gene has the same value at every spot, to the last bit. Raises SectionError for another number of
    tissues, and for spots without tissue.
    """
    if fractions.shape[1] != len(programs.tissues):
        found, expected = fractions.shape[1], len(programs.tissues)
        msg = f"the fractions are of {found} tissues, the programs of {expected}; leave glass out"
        raise SectionError(msg)
    total = fractions.sum(axis=1, keepdims=True)
    if not (total > 0.0).all():
        msg = f"{int((total <= 0.0).sum())} of {len(total)} spots have no tissue below them: remove them first"
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
    """Draw counts: a lognormal library size per spot, then gamma-Poisson counts with mean size times expected share.

    The library size is independent of the tissue. `dispersion` 0 gives Poisson counts.
    """
    size = median_umi * rng.lognormal(0.0, depth_sigma, (len(expected), 1))
    mean = size * expected
    if dispersion > 0.0:
        mean = mean * rng.gamma(1.0 / dispersion, dispersion, mean.shape)
    return np.asarray(rng.poisson(mean), dtype=np.int64)


def _short_names(tissues: Sequence[str]) -> list[str]:
    """Return the three letters at the start of each tissue's gene names."""
    short = [tissue[:3].upper() for tissue in tissues]
    if len(short) < MIN_TISSUES or len(set(short)) < len(short):
        msg = f"expected three tissues or more whose first three letters differ, got {list(tissues)}"
        raise SectionError(msg)
    return short


def _folds(rng: np.random.Generator, genes: int) -> Float64[np.ndarray, " gene"]:
    """Return the fold changes of one program in random order; every program has the same set of them."""
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
    """Return shares in multiples of 1 / PARTS: planted genes with one total in every tissue, null genes unchanged."""
    null_parts = np.maximum(np.floor(PARTS * null / (planted_total + null.sum())), 1.0)
    planted_parts = PARTS - null_parts.sum()
    parts = np.floor(level * planted_parts / level.sum(axis=1, keepdims=True))
    parts[:, 0] += planted_parts - parts.sum(axis=1)  # the rounding error, < 1 part per gene, goes to the most abundant
    return np.concatenate([parts, np.tile(null_parts, (len(level), 1))], axis=1) / PARTS
