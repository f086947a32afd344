from collections.abc import Callable
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest

from raystp.expression.schema import SectionInfo, SpotPositions, make_section


@pytest.fixture
def make() -> Callable[..., ad.AnnData]:
    """Make a section of given counts: spots s0, s1, ... at (10, 1000), (20, 2000), ...; genes g0, g1, ..."""

    def section(counts: object, genes: list[str] | None = None, **changes: str) -> ad.AnnData:
        values = np.asarray(counts)
        n = len(values)
        steps = np.arange(1, n + 1, dtype=np.float64)
        info = SectionInfo("S1", "P1", "slide1", mpp=0.5, spot_diameter_um=55.0, pitch_um=100.0, layout="toy")
        return make_section(
            values,
            genes if genes is not None else [f"g{column}" for column in range(values.shape[1])],
            SpotPositions(
                [f"s{row}" for row in range(n)], np.column_stack([10 * steps, 1000 * steps]), steps, 2 * steps
            ),
            replace(info, **changes),  # type: ignore[arg-type]  # the texts of SectionInfo only
        )

    return section
