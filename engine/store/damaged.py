"""The error of a stored file that is damaged; `Store.tell` and `Store.set_aside` deal with it."""

from __future__ import annotations


class Damaged(Exception):
    """A file exists but cannot be read: it is incomplete, or of another kind.

    Args:
        path: path of the file in its store.
        location: its full path or URI, for the message.
        why: what is wrong with the file.
    """

    def __init__(self, path: str, location: str, why: str):
        super().__init__(f"{location}: {why}")
        self.path, self.location, self.why = path, location, why

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.location, self.why)
