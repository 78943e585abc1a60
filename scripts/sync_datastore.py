"""Copy between CyVerse's Data Store and the container's disk; list; dry run.

Files of the same content are not copied again, so an interrupted copy goes on; nothing
is deleted, nothing outside the store's root touched.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path

from st_cdgm.outputs import digest, write_atomically
from vice_utils import store_home


def inside(root: Path, name: str) -> Path:
    """Return a path below the store's root; refuse one that leads out of it."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        sys.exit(f"{name}: outside the store {root}")
    return path


def copy(source: Path, target: Path, *, dry_run: bool) -> int:
    """Copy a file or what a folder holds; return how many files were new or changed."""
    if not source.exists():
        sys.exit(f"{source}: there is no such file or folder")
    count, files = 0, [source] if source.is_file() else sorted(source.rglob("*"))
    for file in (f for f in files if f.is_file() and not f.is_symlink()):
        to = target / (file.name if file == source else file.relative_to(source))
        if to.is_file() and digest(to) == digest(file):
            continue
        count += 1
        sys.stdout.write(f"{'would copy' if dry_run else 'copied'} {file} -> {to}\n")
        if not dry_run:
            write_atomically(to, partial(shutil.copyfile, file))
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add, pair = parser.add_argument, {"nargs": 2, "metavar": ("SRC", "DST")}
    add("--save-to-datastore", help="disk to store", **pair)
    add("--copy-from-datastore", help="store to disk", **pair)
    add("--list", nargs="?", const=".", metavar="FOLDER")
    add("--root", type=Path, default=store_home(), help="the store (%(default)s)")
    add("--dry-run", action="store_true", help="only say what is copied")
    given = parser.parse_args()
    if given.list:
        for path in sorted(inside(given.root, given.list).iterdir()):
            sys.stdout.write(f"{path.name}{'/' if path.is_dir() else ''}\n")
    if given.save_to_datastore:
        source, name = given.save_to_datastore
        copy(Path(source), inside(given.root, name), dry_run=given.dry_run)
    if given.copy_from_datastore:
        name, place = given.copy_from_datastore
        copy(inside(given.root, name), Path(place), dry_run=given.dry_run)
