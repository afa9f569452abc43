"""What all pages share: the jinja environment, and notebooks as folded, self-contained HTML."""

import json
import re
from html import unescape
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader, pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath, MathInlineParser

from recsys_utils.report.figures import num, percent, seconds
from recsys_utils.store import atomic

TEMPLATES = Path(__file__).parent / "templates"
LINKS = re.compile(r"(?<=<!--notebooks-->).*?(?=<!--/notebooks-->)", re.DOTALL)


def code_template_dir() -> Path:
    """The folder of the nbconvert template `lab_folded`: code cells are folded away, not deleted."""
    return TEMPLATES / "lab_folded"


def render(template: str, **context: object) -> str:
    """A page from one of our templates; everything that is not marked safe is escaped."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "num": num,
        "count": lambda n: f"{n:,}",
        "percent": percent,
        "seconds": seconds,
        "embed": embed,
        "money": money,
    }
    return made.get_template(template).render(**context)


def money(value: float, currency: str) -> str:
    """An amount, the sign before the currency."""
    return f"{'−' if value < 0 else ''}{currency}{num(abs(value))}"


def embed(value: object) -> str:
    """Compact JSON that may stand inside a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace(
        "<", "\\u003c"
    )


def write(page: str, path: Path) -> Path:
    """Write a page whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(
            "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n",
            encoding="utf-8",
        )
    return path


def to_html(notebook: Path, out: Path) -> Path:
    """Export an executed notebook as a self-contained page with code folded and formulas in MathML; link it from the report."""
    nb = nbformat.read(notebook, as_version=4)
    exporter = _Exporter(
        template_name=code_template_dir().name,
        extra_template_basedirs=[str(TEMPLATES)],
        extra_template_paths=[str(TEMPLATES)],
        mathjax_url="",
        require_js_url="",
        exclude_anchor_links=True,
    )
    page, _ = exporter.from_notebook_node(nb, {"title": _title(nb, out), "error": _error(nb)})
    with atomic(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    link_notebooks(out.parent)
    return out


def notebook_links(folder: Path) -> list[dict]:
    """File and title of every notebook's page in a report's folder."""
    pages = sorted(folder.glob("[0-9][0-9]_*.html"))
    return [{"file": p.name, "number": p.name[:2], "title": page_title(p)} for p in pages]


def link_notebooks(folder: Path) -> None:
    """Bring the list of notebooks in a report up to date: most notebooks' pages are written after it."""
    index = folder / "index.html"
    if index.exists():
        links = render("notebooks.html.j2", notebooks=notebook_links(folder))
        write(LINKS.sub(lambda _: links, index.read_text(encoding="utf-8")), index)


def write_index(reports: Path) -> Path:
    """List every data set's report in `reports/index.html`."""
    pages = sorted(reports.glob("*/index.html"))
    facts = [
        {"folder": p.parent.name, "title": page_title(p), **_facts(p.read_text(encoding="utf-8"))}
        for p in pages
    ]
    return write(render("reports_index.html.j2", reports=facts), reports / "index.html")


def _facts(page: str) -> dict[str, str]:
    """The named meta elements of a report's head."""
    return {
        name: unescape(text)
        for name, text in re.findall(r'<meta name="(description|kind)" content="(.*?)">', page)
    }


def page_title(page: Path) -> str:
    """What stands in a page's title element."""
    found = re.search(r"<title>(.*?)</title>", page.read_text(encoding="utf-8"), re.DOTALL)
    return unescape(found[1]).strip() if found else page.stem


def _title(nb: nbformat.NotebookNode, out: Path) -> str:
    headings = (
        re.search(r"^#\s+(.+)$", c.source, re.MULTILINE)
        for c in nb.cells
        if c.cell_type == "markdown"
    )
    return next((re.sub(r"[*`_$]", "", h[1]).strip() for h in headings if h), out.stem)


def _error(nb: nbformat.NotebookNode) -> str:
    """The first error of a notebook in one line; '' if it ran through."""
    outputs = (o for c in nb.cells for o in c.get("outputs", []) if o.output_type == "error")
    return next((f"{o.ename}: {o.evalue}" for o in outputs), "")


class _Renderer(IPythonRenderer):
    """Markdown whose formulas become MathML: no page may ask a remote MathJax for help."""

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return _mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


class _Inline(MathInlineParser):
    # Pandoc's rule: no blank just inside the dollars and no digit after them, so that "$5 or $10" stays text.
    SPECIFICATION = {
        **MathInlineParser.SPECIFICATION,
        "inline_math_tex": r"(?<![$\\])\$(?![\s$])(?P<math_inline_tex>(?:\\.|[^$\\])+?)(?<!\s)\$(?![\d$])",
    }


class _Exporter(HTMLExporter):
    """HTML with our Markdown."""

    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=False, attachments=attachments, exclude_anchor_links=True)
        return MarkdownWithMath(renderer=renderer, inline=_Inline(hard_wrap=False)).render(source)


def _mathml(tex: str, display: str) -> str:
    try:
        return convert(tex.strip(), display=display).replace(
            ' xmlns="http://www.w3.org/1998/Math/MathML"', ""
        )
    except Exception:  # a command that the converter does not know is still readable as TeX
        return f"<code>{IPythonRenderer().escape_html(tex)}</code>"
