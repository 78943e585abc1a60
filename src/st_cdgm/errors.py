"""Errors a user can act on: what was found, what was expected, what to do."""

from __future__ import annotations

from pathlib import Path

from st_cdgm.redaction import redacted


class InputError(ValueError):
    """A file, variable or option that cannot be used, with the facts needed to mend it.

    Its text shows no password or token of a URL.

    Parameters
    ----------
    problem : str
        One sentence: what is wrong.
    file, variable : str or Path, optional
        Where it is wrong.
    found, expected : object, optional
        The value met and the value needed.
    remedy : str, optional
        What the user can do.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        variable: str | None = None,
        found: object | None = None,
        expected: object | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.facts = {
            "file": file,
            "variable": variable,
            "found": found,
            "expected": expected,
            "remedy": remedy,
        }
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.problem]
        lines += [
            f"  {key}: {value}"
            for key, value in self.facts.items()
            if value is not None
        ]
        return redacted("\n".join(lines))


class MissingFileError(InputError, FileNotFoundError):
    """An input file or directory does not exist or cannot be read."""


class MissingVariableError(InputError, KeyError):
    """A variable, level or coordinate is absent."""


class GridMismatchError(InputError):
    """A horizontal grid differs from the one the model was trained on."""


class OutputError(InputError, OSError):
    """An output cannot be written; nothing was left behind."""


class ConfigError(InputError):
    """A configuration key or value is not valid."""


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM); it ends with status 143."""

    STATUS = 143

    def __init__(self) -> None:
        super().__init__(self.STATUS)


def check_choice(
    name: str, found: str, expected: tuple[str, ...], *, section: str = "data."
) -> None:
    """Raise ConfigError unless ``found`` is one of ``expected``.

    ``section`` is put before the name of the variable.
    """
    if found not in expected:
        raise ConfigError(
            f"unknown value of {name}",
            variable=f"{section}{name}",
            found=found,
            expected=", ".join(expected),
        )


def check_least(name: str, found: float, least: float, *, section: str = "") -> None:
    """Raise ConfigError unless ``found`` is at least ``least``."""
    if not found >= least:
        raise ConfigError(
            f"{section}{name} is too small",
            variable=f"{section}{name}",
            found=found,
            expected=f"at least {least}",
        )


def check_between(
    name: str, found: float, low: float, high: float, *, section: str = ""
) -> None:
    """Raise ConfigError unless ``found`` is in ``[low, high]``."""
    if not low <= found <= high:
        raise ConfigError(
            f"{section}{name} is out of range",
            variable=f"{section}{name}",
            found=found,
            expected=f"{low} to {high}",
        )
