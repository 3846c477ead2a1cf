"""What a CT series says in words about contrast agent: in its description, and as the agent's name.

A denial outweighs what it denies ("without contrast"). English and Chinese words, and the commonest of other European
languages. Words are written by people: where the vessels speak clearly, they have the last word (`segrap.ct.pair`).
"""

from __future__ import annotations

import re

_CONTRAST = r"contrast|kontrast|\bc ?\+|\+ ?c\b|\bce(?:[- ]?ct)?\b|enhanced|venous|arterial|portal|\bkm\b|增强|增強"
# Words of denial, and what may stand between them and what they deny: "no i.v. contrast", "sin medio de contraste".
_NOT = r"no|none|not|nil|kein\w*|ohne|sans|sin|sem|senza|zonder|utan|uden|uten|bez|with ?out|w/?o"
_BETWEEN = r"(?:[\s.:-]*\b(?:i\.?v|any|oral|medio|mezzo|produit|agent|agente|de|di)\b)*[\s.:-]*"
_PLAIN_WORDS = re.compile(
    r"non[- ]?(ce|con|enh)|un[- ]?enhanced|with ?out|\bw/?o\b|\bc-(?!\w)|\bnc(ct)?\b|\bplain|\bnativ|pre[- ]?con"
    rf"|\b(?:{_NOT}|non){_BETWEEN}(?:{_CONTRAST}|enhance|i\.?v\b)"
    r"|\b(?:o\.? ?|vor |pre[- ]?)km\b"
    r"|平扫|平掃|[未非无無不](?:[行做作打用]|使用|注射)?(?:增强|增強|强化|強化|造影|对比剂|對比劑)",
    re.IGNORECASE,
)
_CONTRAST_WORDS = re.compile(_CONTRAST, re.IGNORECASE)
# "non" and 非 alone deny nothing before "ionic": that is a kind of agent.
_NO_AGENT = re.compile(rf"(?:n|na|n/a|non|nein|0|-+|否)$|(?:{_NOT})(?!\w)|[未无無不]", re.IGNORECASE)


def describes_contrast(description: str) -> bool | None:
    """What the words of a series description say about contrast agent; None when they say nothing."""
    words = description.replace("_", " ")
    if _PLAIN_WORDS.search(words):
        return False
    return True if _CONTRAST_WORDS.search(words) else None


def names_agent(agent: str) -> bool:
    """Whether a value of Contrast/Bolus Agent names one: some scanners write there that there was none."""
    words = agent.strip()
    return bool(words) and not _NO_AGENT.match(words) and describes_contrast(words) is not False
