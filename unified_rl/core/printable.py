"""Texts of others as a terminal may show them."""


def printable(text: str) -> str:
    """The text with a space for each character that would steer a terminal, or ends a line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
