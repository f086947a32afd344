"""Real sections through HEST's protocols: the panel of scanpy, and the script's scores to the sixth digit.

The features are the pixels of a small copy of each spot's patch: scikit-learn's rounding is what is tested here.
"""

from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import simplejpeg
from PIL import Image
from scipy.sparse import csr_matrix

from raystp.evaluate.published.hest import hest_panel
from raystp.evaluate.published.protocol import FoldOutcome, GeneCounts, HeldOutSection
from raystp.evaluate.published.registry import PUBLISHED
from raystp.expression.label_values import label_values
from raystp.expression.labels import Labels
from raystp.models.baselines.hest_ridge import fit_hest_ridge, predict_hest_ridge
from raystp.models.baselines.method import HestRidgeOptions
from tests.conftest import SHARED
from tests.evaluate.published.hest_script import Side, correlations

DATA = SHARED / "data" / "her2st"
FOLDS = {0: ["B4"], 1: ["C2", "C3", "C4"]}
"""Two patients: each is tested once."""
NAMES = [name for names in FOLDS.values() for name in names]
PATCH, SIDE = 163, 14
"""A patch of 112 um has 163 px, and its small copy 14 px."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.skipif(not DATA.exists(), reason="no HER2ST sections in ../shared/data/her2st"),
]


@dataclass(frozen=True)
class Measured:
    features: np.ndarray
    counts: csr_matrix
    genes: list[str]

    def columns(self, panel: list[str]) -> np.ndarray:
        return np.asarray([self.genes.index(gene) for gene in panel], np.int64)

    def labels(self, panel: list[str]) -> np.ndarray:
        return np.asarray(np.log1p(self.counts[:, self.columns(panel)].toarray()))


def _read(name: str) -> Measured:
    counts = pd.read_csv(DATA / "ST-cnts" / f"{name}.tsv.gz", sep="\t", index_col=0)
    places = pd.read_csv(DATA / "ST-spotfiles" / f"{name}_selection.tsv", sep="\t")
    places.index = pd.Index([f"{x}x{y}" for x, y in zip(places["x"], places["y"], strict=True)])
    kept = [spot for spot in counts.index if spot in places.index]
    corners = places.loc[kept, ["pixel_x", "pixel_y"]].to_numpy().astype(int) - PATCH // 2
    (picture,) = (DATA / "ST-imgs" / name[0] / name).glob("*.jpg")
    image = simplejpeg.decode_jpeg(picture.read_bytes())
    patches = [Image.fromarray(image[y : y + PATCH, x : x + PATCH]) for x, y in corners.tolist()]
    pixels = [np.asarray(one.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel() / 255 for one in patches]
    return Measured(np.stack(pixels), csr_matrix(counts.loc[kept].to_numpy(np.float64)), list(counts.columns))


@pytest.fixture(scope="module")
def sections() -> dict[str, Measured]:
    return {name: _read(name) for name in NAMES}


@pytest.fixture(scope="module")
def panel(sections: dict[str, Measured]) -> list[str]:
    """Return the panel by the recipe of the benchmark, with scanpy itself."""
    adatas = []
    for one in sections.values():
        adata = ad.AnnData(one.counts.copy(), var=pd.DataFrame(index=pd.Index(one.genes)))
        adata.obs_names = [str(number) for number in range(adata.n_obs)]
        sc.pp.filter_genes(adata, min_cells=int(np.ceil(0.1 * adata.n_obs)))
        adatas.append(adata)
    genes = sorted(set.intersection(*[set(one.var_names) for one in adatas]))
    stacked = ad.concat([one[:, genes] for one in adatas], index_unique="-")
    sc.pp.log1p(stacked)
    sc.pp.highly_variable_genes(stacked, n_top_genes=50)
    return list(stacked.var_names[stacked.var["highly_variable"]])


def _official(sections: dict[str, Measured], panel: list[str], *, reduce: bool) -> tuple[float, float]:
    def side(names: list[str]) -> Side:
        found = [sections[name] for name in names]
        return np.concatenate([one.features for one in found]), np.concatenate([one.labels(panel) for one in found])

    folds = [
        correlations(side([name for name in NAMES if name not in test]), side(test), reduce=reduce).mean()
        for test in FOLDS.values()
    ]
    return float(np.mean(folds)), float(np.std(folds))


def _by_raystp(sections: dict[str, Measured], panel: list[str], protocol: str) -> tuple[float, float]:
    record = PUBLISHED[protocol]
    labels, options = Labels(**record.train["labels"]), HestRidgeOptions(**record.method["hest_ridge"])
    folds = []
    for number, test in FOLDS.items():
        train = [sections[name] for name in NAMES if name not in test]
        expression = np.concatenate([label_values(one.counts, one.columns(panel), labels) for one in train])
        model = fit_hest_ridge(np.concatenate([one.features for one in train]), expression, options)
        held = tuple(
            HeldOutSection(
                section=name,
                patient=name[0],
                counts=sections[name].counts[:, sections[name].columns(panel)].toarray(),
                totals=np.asarray(sections[name].counts.sum(axis=1)).ravel(),
                array=np.zeros((len(sections[name].features), 2)),
                rows=np.arange(len(sections[name].features)),
                predicted=predict_hest_ridge(model, sections[name].features),
            )
            for name in test
        )
        folds.append(FoldOutcome(number, tuple(panel), held))
    scores = record.score(folds)
    return scores.overall["PCC"], scores.sd["PCC"]


@pytest.mark.parametrize(("protocol", "reduce"), [("hest-readme", True), ("hest-paper", False)])
def test_the_score_is_that_of_the_benchmarks_script(
    sections: dict[str, Measured], panel: list[str], protocol: str, *, reduce: bool
) -> None:
    expected = _official(sections, panel, reduce=reduce)
    assert _by_raystp(sections, panel, protocol) == pytest.approx(expected, abs=1e-6)


def test_the_panel_is_that_of_scanpy(sections: dict[str, Measured], panel: list[str]) -> None:
    assert hest_panel({name: GeneCounts(tuple(one.genes), one.counts) for name, one in sections.items()}) == panel
