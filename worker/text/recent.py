"""What was made of the last texts: the contexts of one event all ask for the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Made = TypeVar("Made")

MOST_CHARACTERS: Final = 4_000_000
MOST_TEXTS: Final = 64


class Recent(Generic[Made]):
    """Remembers what ``make`` gave for the last texts, within bounds. Safe from several threads.

    Two threads that ask for one text at the same time may both make it.
    """

    def __init__(self, make: Callable[[str], Made]) -> None:
        self._make = make
        self._made: OrderedDict[str, Made] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def __call__(self, text: str) -> Made:
        """What is made of the text; what ``make`` raises is raised each time."""
        with self._lock:
            if text in self._made:
                self._made.move_to_end(text)
                return self._made[text]
        made = self._make(text)
        with self._lock:
            if text not in self._made and len(text) <= MOST_CHARACTERS:
                self._made[text] = made
                self._characters += len(text)
            while len(self._made) > MOST_TEXTS or self._characters > MOST_CHARACTERS:
                self._characters -= len(self._made.popitem(last=False)[0])
        return made
