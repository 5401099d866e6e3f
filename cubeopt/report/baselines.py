"""The baselines of a study as they stand beside its results: by name, with their value."""

import math

from cubeopt.report.summary import Summary


def named(summary: Summary) -> list[tuple[str, float]]:
    """Name and value of each that is known of the first objective."""
    names = {
        "mean": "predicting the mean",
        "identity": "copying the input",
        "pca": f"PCA to {summary.baselines.get('pca_width')} numbers",
    }
    found = [(name, summary.baselines.get(key)) for key, name in names.items()]
    return [(name, float(v)) for name, v in found if v is not None and math.isfinite(v)]


def levels(summary: Summary) -> list[tuple[str, float]]:
    """The same, with the value in the name, as a line in a picture is called."""
    return [(f"{name}: {value:.3g}", value) for name, value in named(summary)]
