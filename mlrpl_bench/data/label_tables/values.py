"""This module says what the values of a label table mean: present, absent or unknown.

1 is present, 0 is absent and an empty cell is unknown. -1 has no meaning until the user gives it one, because it means
*absent* in this field's code, *uncertain* in CheXpert's tables and *unknown* elsewhere.
"""

from __future__ import annotations

import re

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.utils.errors import UserError

STATES = {"present": PRESENT, "absent": ABSENT, "unknown": UNKNOWN}
"""The options that give a value a meaning, and the label state that each stands for."""

NUMBER = re.compile(r"([+-]?)0*(\d+)(?:\.0*)?", re.ASCII)


class NoLabel(KeyError):
    """This is a value without a meaning; its first argument is the value, its second the advice."""


class LabelValues(dict[str, bytes]):
    """The label state of each value as one byte, so that the states of a row can be joined.

    A value is looked up as it is written; the first time that it is met, white space around it and the ways to write a
    whole number (1, 1.0, +1) are taken into account.

    Args:
        present, absent, unknown: values with that meaning, separated by commas. An empty cell is always unknown.

    Raises:
        UserError: a value has two meanings.

    >>> LabelValues()["1.0"], LabelValues(absent="-1", unknown="0")["-1"], LabelValues()[""]
    (b'\\x01', b'\\xff', b'\\x00')
    """

    def __init__(self, present: str = "1", absent: str = "0", unknown: str = "") -> None:
        super().__init__()
        self.meanings: dict[str, int] = {"": UNKNOWN}
        for (name, state), values in zip(STATES.items(), (present, absent, unknown), strict=True):
            for value in map(_canonical, values.split(",")):
                if self.meanings.setdefault(value, state) != state:
                    other = next(n for n, s in STATES.items() if s == self.meanings[value])
                    raise UserError(
                        f"the value {value!r} would mean {other} and {name}; give each value one meaning, such as "
                        "--set-data absent=-1 --set-data unknown=0"
                    )

    def __missing__(self, value: str) -> bytes:
        """Return the state of a value that was not met before.

        Raises:
            NoLabel: it has no meaning.
        """
        state = self.meanings.get(_canonical(value))
        if state is None:
            raise NoLabel(value, self._advice(_canonical(value)))
        self[value] = state.to_bytes(1, "little", signed=True)
        return self[value]

    def text_of(self, state: int) -> str:
        """Return the first of the values that mean PRESENT or ABSENT, as whole numbers in their shortest form.

        Raises:
            UserError: there is no such value.

        >>> LabelValues(absent="-1.0, 0").text_of(ABSENT)
        '-1'
        """
        for value, meaning in self.meanings.items():
            if meaning == state:
                return value
        raise UserError(f"no value means {_name(state)}; name one with --set-data {_name(state)}=VALUE")

    def _advice(self, value: str) -> str:
        """Return what to do about a value without a meaning."""
        if value == "-1":
            return (
                "-1 means absent to some and unknown to others; say which with --set-data absent=-1 --set-data "
                "unknown=0, or with --set-data unknown=-1"
            )
        if value == "0":
            return "say what 0 means beside it, with --set-data unknown=0 or --set-data absent=-1,0"
        known = ", ".join(f"{v or 'empty'} {_name(s)}" for v, s in self.meanings.items())
        return (
            f"labels are {known}; correct it, or give it a meaning with --set-data unknown=VALUE (or absent, present)"
        )


def _canonical(value: str) -> str:
    """Return a value without white space around it, whole numbers in their shortest form."""
    value = value.strip()
    found = NUMBER.fullmatch(value)
    if found is None:
        return value
    sign, digits = found.groups()
    return f"{'-' if sign == '-' and digits != '0' else ''}{digits}"


def _name(state: int) -> str:
    return next(name for name, of_name in STATES.items() if of_name == state)
