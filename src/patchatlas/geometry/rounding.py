"""Rounding of sizes: exact, halves up, never towards zero by accident."""

from fractions import Fraction


def round_half_up(value: Fraction) -> int:
    """The nearest integer; a half goes up (Python's `round` sends it to the even neighbour)."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def round_to_multiple(value: Fraction | int, multiple: int) -> int:
    """The nearest multiple, halves up, and never below one multiple."""
    return max(1, round_half_up(Fraction(value) / multiple)) * multiple


def ceil_to_multiple(value: int, multiple: int) -> int:
    """The smallest multiple that is not below `value`."""
    return -(-value // multiple) * multiple
