"""MkDocs' events: pages made from the package, formulas made MathML."""

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from website import mathml, notebooks, reference

_made: dict[str, str] = {}
_link: dict[str, str] = {}  # the page of a name
_COMMON = {"fixed", "random", "gramian", "weighting", "rule", "rules", "norms"}  # words as well


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add to the navigation what the package writes, and pages that it does not name."""
    _made.clear()
    sections = {"Rules": reference.rules(), "Reference": reference.names(),
                "Notebooks": notebooks.pages()}  # fmt: skip
    for title, section in sections.items():
        _made.update({path: text for _, path, text in section})
        if title != "Notebooks":
            _link.update({name: path.replace(".md", ".html") for name, path, _ in section})
    _made["changelog.md"] = reference.changelog()
    unnamed = reference.pages_outside(str(config.nav))
    for item in config.nav or []:
        for title, section in sections.items():
            if title in item:
                item[title] += [{name: path} for name, path, _ in section]
        for title, paths in unnamed.items():
            if title in item:
                item[title] += paths
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, text in _made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Formulas as MathML; public names in running text lead to their pages."""

    def linked(found: re.Match[str]) -> str:
        target = _link.get(found[1])
        if target is None or found[1] in _COMMON or target == page.url:
            return found[0]
        return f'<a href="{get_relative_url(target, page.url)}">{found[0]}</a>'

    outside = re.split(r"(<(a|h\d|b)\b.*?</\2>)", mathml.replace(content), flags=re.DOTALL)
    outside[::3] = [re.sub(r"<code>(\w+)(?:\(\))?</code>", linked, text) for text in outside[::3]]
    del outside[2::3]
    return "".join(outside)
