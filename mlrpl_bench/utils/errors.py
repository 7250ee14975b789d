"""The one error a user sees."""


class UserError(ValueError):
    """Something the user can mend. The message is one line: what is wrong, and what to do about it."""
