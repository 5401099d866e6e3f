"""The baselines of a study as they stand beside its results: by name, with their value."""

import math

from cubeopt.report.summary import Summary


def levels(summary: Summary) -> list[tuple[str, float]]:
    """Label and value of each that is known of the first objective."""
    names = {
        "mean": "predicting the mean",
        "identity": "copying the input",
        "pca": f"PCA to {summary.baselines.get('pca_width')} numbers",
    }
    found = [(label, summary.baselines.get(key)) for key, label in names.items()]
    return [
        (f"{label}: {value:.3g}", float(value))
        for label, value in found
        if value is not None and math.isfinite(value)
    ]
