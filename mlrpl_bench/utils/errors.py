"""The one error a user sees, and what any error says on one line."""


class UserError(ValueError):
    """Something the user can mend. The message is one line: what is wrong, and what to do about it."""


def one_line(error: object) -> str:
    """Return the text of an error, with every line break and run of blanks as one blank.

    >>> one_line(ValueError("two\\n   lines "))
    'two lines'
    """
    return " ".join(str(error).split())
