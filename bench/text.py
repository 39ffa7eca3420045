"""Text that several files need: shortened lists, durations, percentages, NAME=VALUE."""

from collections.abc import Iterable, Sequence

from bench.errors import UserError

MOST_SHOWN = 8  # names in a message, before "and 3 more"
MOST_OF_AN_ERROR = 300  # characters


def listed(names: Iterable[object], most: int = MOST_SHOWN) -> str:
    """Join names, shortened to the first `most`: "a, b and 3 more"."""
    texts = [str(name) for name in names]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def enumerated(names: Sequence[str]) -> str:
    """Join all names: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plural(num: int, noun: str) -> str:
    """Write a count with its noun: "1 case", "2 cases"."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write a duration: 42 s, 1 min 7 s, 2 h 15 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(score: float | None) -> str:
    """Write a score in 0..1 as a percentage, and None as "none"."""
    return "none" if score is None else f"{100 * score:.2f} %"


def first_line(error: BaseException) -> str:
    """Return an error's message on one line, shortened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MOST_OF_AN_ERROR else text[:MOST_OF_AN_ERROR] + "…"


def name_and_value(text: str, flag: str, example: str) -> tuple[str, str]:
    """Split the NAME=VALUE argument of a flag.

    Args:
        flag: name of the flag for the error message, such as "--root".
        example: a correct argument, for the error message.

    Returns:
        The name without spaces around it, and the value as given.

    Raises:
        UserError: if the name or the "=" is missing.
    """
    name, equals, value = text.partition("=")
    if not (name.strip() and equals):
        raise UserError(f"{flag} takes NAME=VALUE, such as {example}, not {text!r}.")
    return name.strip(), value
