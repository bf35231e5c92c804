"""LaTeX → MathML, which browsers show by themselves: no script, no font, no network."""

import html
import re

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def render(latex: str, display: str) -> str:
    """One formula.

    Args:
      latex: without its dollars.
      display: "inline" or "block".

    Raises:
      ValueError: it holds a command that the converter leaves as it is.
    """
    made = convert(latex.strip(), display=display)
    if left := re.search(r"\\[A-Za-z]+", made):
        raise ValueError(f"no MathML for {left[0]} in: {latex.strip()}")
    return made


def block(latex: str) -> str:
    """A displayed formula; its parts between \\qquad may stand under each other."""
    parts = [render(part, "block") for part in latex.split(r"\qquad")]
    return f'<div class="formula">{"".join(f"<span>{part}</span>" for part in parts)}</div>'


def replace(page: str) -> str:
    """A page of HTML with MathML where arithmatex left LaTeX."""
    page = _BLOCK.sub(lambda found: block(html.unescape(found[1])), page)
    return _INLINE.sub(lambda found: render(html.unescape(found[1]), "inline"), page)
