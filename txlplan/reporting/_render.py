"""Fill the templates of reports/: the user's own come before the shipped ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError
from markupsafe import Markup

from txlplan import __version__, resources
from txlplan.errors import ConfigError
from txlplan.reporting._content import Report

_AFTER_NUMBER = re.compile(r"(?<=\d) (?=[^\W\d]|%)")


def html(report: Report) -> str:
    """One HTML document that needs nothing else: styles, script and charts are inside."""
    return filled("report.html.j2", {"report": report, "plotly": plotly()})


def plotly() -> Markup:
    """The script that draws charts, for a page that loads nothing."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def markdown(report: Report) -> str:
    """The same in Markdown: verdict and tables."""
    return filled("report.md.j2", {"report": report})


def filled(name: str, values: Mapping[str, Any]) -> str:
    """A template of reports/, filled. Raises ConfigError that names the template and the line."""
    roots = resources.search_path("reports")
    environment = Environment(
        loader=FileSystemLoader(roots),
        autoescape=name.endswith(".html.j2"),
        finalize=_unbroken if name.endswith(".html.j2") else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _markdown_cell
    try:
        return environment.get_template(name).render(
            version=__version__, asset=lambda file: _asset(environment, file), **values
        )
    except TemplateSyntaxError as error:
        raise ConfigError(f"{error.filename or name}:{error.lineno}: {error.message}") from None
    except TemplateError as error:
        searched = ", ".join(map(str, roots))
        raise ConfigError(f"report template {name}: {type(error).__name__}: {error}", hint=f"searched {searched}") from None


def _unbroken(value: Any) -> Any:
    """Text whose numbers stay on one line with their units."""
    return _AFTER_NUMBER.sub("\u00a0", value) if type(value) is str else value


def _asset(environment: Environment, name: str) -> Markup:
    """A style sheet or script as it is, not a template: braces mean something else there."""
    assert environment.loader is not None
    source, _, _ = environment.loader.get_source(environment, name)
    return Markup(source)


def _markdown_cell(text: str) -> str:
    """Text that stays in its cell and shows as it is."""
    for sign in ("\\", "|", "`", "*", "_", "[", "]", "#"):
        text = text.replace(sign, f"\\{sign}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
