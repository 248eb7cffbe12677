"""Cells of CSV files that people open in a spreadsheet."""

BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe comes before what would begin one.

    For words that people have typed; numbers are written as numbers.
    """
    return f"'{text}" if text.startswith(BEGINS_A_FORMULA) else text


def plain_cell(cell: str) -> str:
    """The text that `safe_cell` was given."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(BEGINS_A_FORMULA) else cell
