"""Letters in LaTeX: every letter of a name is printed, and different names stay different."""

import unicodedata
from collections.abc import Iterable

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "…": r"\ldots{}",
    "—": "---",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "¬": r"$\lnot$",
    "µ": r"$\mu$",
    "−": "$-$",
}
LIGATURES = "-',"  # two in a row would become another character
GREEK = (  # from alpha to omega
    *("alpha", "beta", "gamma", "delta", "varepsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", "mathit{o}", "pi", "rho", "varsigma", "sigma", "tau", "upsilon"),
    *("varphi", "chi", "psi", "omega"),
)
CAPITALS = {
    **{"Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi"},
    **{"Σ": "Sigma", "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega"},
}
LIKE_LATIN = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ", "ABEZHIKMNOPTX", strict=True))  # set upright in Greek
SIGNS = {
    **{"≤": "leq", "≥": "geq", "≠": "neq", "≈": "approx", "≡": "equiv", "∼": "sim", "∞": "infty"},
    **{"→": "rightarrow", "←": "leftarrow", "↑": "uparrow", "↓": "downarrow", "⇒": "Rightarrow"},
    **{"↔": "leftrightarrow", "∈": "in", "∑": "sum", "∏": "prod", "∂": "partial", "∇": "nabla"},
    **{"√": "surd", "·": "cdot", "∘": "circ", "⊕": "oplus", "⊗": "otimes", "∪": "cup", "∩": "cap"},
    **{"≪": "ll", "≫": "gg", "∀": "forall", "∃": "exists", "∅": "emptyset", "′": "prime"},
    **{"ϵ": "epsilon", "ϕ": "phi", "ϑ": "vartheta", "ℓ": "ell"},
}
IN_T1 = "“”‘’„‚‹›†‡•‰€™"  # besides Latin-1 and the Latin letters with accents
NOT_IN_T1 = "ĦħĸĿŀŉŦŧſ"  # of Latin Extended-A
LAST_LATIN = 0x17F
NEEDS = (
    "% needs \\usepackage{array,booktabs,graphicx,siunitx,textcomp}, \\usepackage[T1]{fontenc}",
    "% and \\usepackage[utf8]{inputenc} before TeX Live 2018",
)
SHOWN = 24  # letters in a comment


def escape(text: str) -> str:
    """Escape a text so that LaTeX prints it literally; characters without a sign as their codes."""
    plain = unicodedata.normalize("NFC", " ".join(text.split()))
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)
    shown = []
    for before, character in zip(f" {plain}", plain, strict=False):
        apart = "{}" if before == character and character in LIGATURES else ""
        shown.append(apart + (SPECIAL.get(character) or _sign(character)))
    return "".join(shown)


def _sign(character: str) -> str:
    """Return a character as LaTeX prints it; letters that need other fonts as they are."""
    if "α" <= character <= "ω":
        return f"$\\{GREEK[ord(character) - ord('α')]}$"
    if character in LIKE_LATIN:
        return f"$\\mathrm{{{LIKE_LATIN[character]}}}$"
    if character in CAPITALS:
        return f"$\\{CAPITALS[character]}$"
    if character in SIGNS:
        return f"$\\{SIGNS[character]}$"
    if ord(character) <= LAST_LATIN:
        return character
    compatible = unicodedata.normalize("NFKD", character)
    if unicodedata.decomposition(character).startswith("<super>") and compatible.isascii():
        return f"\\textsuperscript{{{compatible}}}"
    if unicodedata.decomposition(character).startswith("<sub>") and compatible.isascii():
        return f"\\textsubscript{{{compatible}}}"
    return character


def needs(lines: Iterable[str]) -> list[str]:
    """Return comments that say what a file with these lines needs in the preamble."""
    letters = {c for line in lines for c in line}
    others = sorted({c for c in letters if ord(c) > LAST_LATIN or c in NOT_IN_T1} - set(IN_T1))
    if not others:
        return list(NEEDS)
    shown = "".join(others[:SHOWN]) + ("…" if others[SHOWN:] else "")
    return [
        "% needs XeLaTeX or LuaLaTeX, \\usepackage{array,booktabs,graphicx,siunitx,fontspec}",
        f"% and a font with the letters {shown}, such as \\setmainfont{{Noto Sans CJK SC}}",
    ]
