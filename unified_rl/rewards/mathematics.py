"""Whether two formulas mean the same, by the optional package math-verify."""

import importlib.util

from unified_rl.core.errors import ConfigError

FORMULA_LIMIT = 300
"""A longer answer, in characters, is not read as a formula."""


def require_math_verify() -> None:
    """Refuses to judge formulas without the package that can.

    Raises:
        ConfigError: math-verify is not installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        # hydra-core holds the ANTLR runtime at 4.9, so math-verify must take that one
        raise ConfigError(
            "kind=math needs math-verify: pip install math-verify[antlr4_9_3]; or set kind=auto"
        )


def same_formula(answer: str, gold: str) -> bool:
    """Whether two texts, each one formula in LaTeX or plain, are equal as mathematics.

    Each is read as a whole. By itself math-verify looks for the last formula of a text, with which
    "2 or 3" would be 3.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    formulas = []
    for text in (gold, answer):
        text = " ".join(text.split()).rstrip(". ").strip("$")
        if not text or len(text) > FORMULA_LIMIT or "$" in text:
            return False
        formulas.append(parse(f"${text}$", extraction_config=[LatexExtractionConfig()]))
    # verify is not symmetric: gold goes first
    return all(formulas) and bool(verify(*formulas))
