"""CyVerse VICE: is this one of its containers, where is the Data Store, what to do.

python scripts/vice_utils.py
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

STORE = Path.home() / "data-store"
VARIABLES = ("VICE_APP", "IPLANT_USER", "CYVERSE_USER", "IRODS_USER_NAME")


def on_vice(store: Path = STORE) -> bool:
    """Whether this is an interactive container of CyVerse."""
    return store.is_dir() or any(name in os.environ for name in VARIABLES)


def store_home(store: Path = STORE) -> Path:
    """Return the user's folder of the Data Store, ``~/data-store/home/USER``."""
    user = next((os.environ[n] for n in VARIABLES[1:] if n in os.environ), None)
    homes = sorted((store / "home").glob("*")) if (store / "home").is_dir() else []
    own = [home for home in homes if home.name != "shared"]
    if user is None and len(own) == 1:
        return own[0]
    return store / "home" / (user or "USER")


def ensure_folders(*names: str) -> list[Path]:
    """Make the folders of a project on the container's own disk."""
    made = [Path(name) for name in names or ("data/raw", "data/processed", "results")]
    for folder in made:
        folder.mkdir(parents=True, exist_ok=True)
    return made


def advice() -> list[str]:
    """Return what is worth doing in such a container."""
    home = store_home()
    copy = "python scripts/sync_datastore.py"
    return [
        f"the Data Store is slow: copy inputs first ({copy} --copy-from-datastore DIR "
        "data/raw)",
        f"the container's disk is lost when it ends: {copy} --save-to-datastore "
        f"results results (to {home})",
        "st-cdgm doctor says whether there is a GPU; set training.device accordingly",
        "an interrupted training goes on with --resume",
    ]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    sys.stdout.write(f"VICE: {'yes' if on_vice() else 'no'}; store: {store_home()}\n")
    sys.stdout.write("".join(f"- {line}\n" for line in advice()))
