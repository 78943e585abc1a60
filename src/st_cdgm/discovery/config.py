"""Settings of the search for links."""

from __future__ import annotations

from dataclasses import dataclass

from st_cdgm.errors import check_least


@dataclass(kw_only=True)
class DiscoveryConfig:
    """Search and test of lagged links.

    Attributes
    ----------
    max_lag : int
        Steps of the past that may act, L; every lag is a group of features.
    components, squares : int
        Leading components of a variable's 3 x 3 neighbourhood at each lag, and how many
        of them also enter by their squares and products; 0 squares: a linear test.
    memory : int
        Steps before the last L whose mean enters too: what is slow in a variable. 0 for
        none.
    trend : int
        Order of a polynomial of time that every prediction may use.
    harmonics : int
        Annual harmonics removed beforehand; 0 leaves the season in.
    clip : float
        Anomalies beyond so many standard deviations are drawn in, so that a few
        extreme days do not decide.
    folds : int
        Every segment of the record is held out in one of so many fits.
    block : int
        Steps of a block of the test: its mean loss counts as one draw. 0: a sixtieth of
        the record, but 5 to 30 steps.
    level : float
        False discovery rate q of the accepted links.
    gain_level : float
        Level at which the held-out gain itself must exceed 0: what adds nothing to a
        prediction is no link, however sure.
    shadow_ratio : float
        How many times a gain must exceed the best shadow of its target.
    doubt_level : float
        Level of the sign of a slow hidden driver.
    target_cells : int
        Fine cells, evenly spread, that links to target variables are tested on; 0 for
        no such test.
    max_cells : int
        More inner cells than this are thinned out evenly.
    """

    max_lag: int = 3
    components: int = 18
    squares: int = 4
    memory: int = 28
    trend: int = 1
    harmonics: int = 3
    clip: float = 4.0
    folds: int = 5
    block: int = 0
    level: float = 0.01
    gain_level: float = 0.1
    shadow_ratio: float = 2.0
    doubt_level: float = 0.2
    target_cells: int = 24
    max_cells: int = 12

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        rule = ("level", "gain_level", "shadow_ratio", "doubt_level")
        for least, names in (
            (
                0,
                (
                    "harmonics",
                    "trend",
                    "memory",
                    "block",
                    "squares",
                    "target_cells",
                    *rule,
                ),
            ),
            (1, ("max_lag", "components", "clip", "max_cells")),
            (2, ("folds",)),
        ):
            # All of them numbers, none with an upper limit.
            for name in names:
                check_least(name, getattr(self, name), least, section="discovery.")
