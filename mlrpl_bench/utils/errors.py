"""This module has the one error that a user sees."""


class UserError(ValueError):
    """The user can mend what is wrong. The message is one line: what is wrong, and what to do about it."""
