"""What the script of HEST's benchmark computes, with scikit-learn and SciPy as it calls them, and nothing of raystp."""

import numpy as np
import torch
from scipy.stats import pearsonr
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

Side = tuple[np.ndarray, np.ndarray]
"""Features, and log1p of raw counts, of all spots of one side of a fold."""


def correlations(train: Side, test: Side, *, reduce: bool, alpha: float | None = None) -> np.ndarray:
    """Return the correlation of each gene over the test spots; `reduce` is the script's `dimreduce`."""
    x: np.ndarray | torch.Tensor
    x_test: np.ndarray | torch.Tensor
    (x, y), (x_test, y_test) = train, test
    if reduce:
        components = min(256, *x.shape)
        pipe = Pipeline([("scaler", StandardScaler()), ("PCA", PCA(n_components=components, random_state=1))])
        # Tensors, as in the script: their values are float32, and scikit-learn reads them as float64.
        x, x_test = torch.Tensor(pipe.fit_transform(x)), torch.Tensor(pipe.transform(x_test))
    penalty = 100 / (x.shape[1] * y.shape[1]) if alpha is None else alpha
    ridge = Ridge(solver="lsqr", alpha=penalty, random_state=1, fit_intercept=False, max_iter=1000)
    predicted = ridge.fit(x, y).predict(x_test)
    return np.asarray([pearsonr(y_test[:, gene], predicted[:, gene])[0] for gene in range(y.shape[1])])
