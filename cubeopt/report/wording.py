"""Numbers of trials as people write them."""

from collections.abc import Sequence


def trials(numbers: Sequence[int]) -> str:
    """ "trial 3", "trials 3, 4 and 7", or the first ten and a count."""
    if len(numbers) == 1:
        return f"trial {numbers[0]}"
    shown = [str(number) for number in numbers[:10]]
    if len(numbers) > 10:
        return f"trials {', '.join(shown)} and {len(numbers) - 10} more"
    return f"trials {', '.join(shown[:-1])} and {shown[-1]}"
