"""Numbers rounded to what they mean: small records, and no digits that only look exact."""

from typing import overload

from torch import Tensor


@overload
def rounded(value: float, digits: int = 3) -> float: ...
@overload
def rounded(value: Tensor, digits: int = 3) -> list[float]: ...
def rounded(value: float | Tensor, digits: int = 3) -> float | list[float]:
    """*value*, a number or a row of them, to so many significant *digits*."""
    if isinstance(value, Tensor):
        return [rounded(each, digits) for each in value.tolist()]
    return float(f"{value:.{digits}g}") + 0.0  # no minus before a nought


def placed(values: Tensor, places: int = 4) -> list[float]:
    """A row of shares or bits, to so many decimal *places*."""
    return [round(each, places) + 0.0 for each in values.tolist()]
