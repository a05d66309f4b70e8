"""Keeps the numbers of members as they are now, after their `VERSION` was raised.

`python tests/golden/renew.py attacks/pgd ...` keeps those of the members that are named.

Without names, of all members whose version is another than the one that is kept.
"""

from __future__ import annotations

import sys

from numbers_of import file_of, keep, kept, members, module_of


def main() -> None:
    asked = sys.argv[1:]
    for member in asked or members():
        new = not file_of(member).exists() or kept(member)["version"] != module_of(member).VERSION
        if new:
            keep(member)
            print(f"kept: {member}")
        elif asked:
            print(f"{member}: its VERSION is that of the numbers that are kept; raise it first")


if __name__ == "__main__":
    main()
