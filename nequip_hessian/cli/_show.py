"""Text from files on its way to a terminal."""

from __future__ import annotations

import unicodedata


def plain(text: object) -> str:
    """Return a text without what a terminal would obey: control characters and invisible marks are written out.

    A label, title or file name may hold an escape sequence that clears the screen, or a mark that turns the
    direction of writing round; both are shown as `\\x1b` or `\\u202e`. Line ends and tabs stay.
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )
