"""The one exception of the data side that means: the input is at fault, not the code."""


class BadInput(ValueError):
    """Bad input or a caller's mistake, told in one sentence that says what to do."""
