"""HTML pages: the jinja templates, notebooks exported with nbconvert, and the lists of pages."""

import re
from html import unescape
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader, pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath, MathInlineParser

from recsys_utils.report import wording
from recsys_utils.store import atomic

TEMPLATES = Path(__file__).parent / "templates"
NOTEBOOK_TEMPLATE = "lab_folded"  # for nbconvert: code cells are folded away, not deleted
COMPACT_JSON = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
LINKS = re.compile(r"(?<=<!--notebooks-->).*?(?=<!--/notebooks-->)", re.DOTALL)


def render(template: str, **context: object) -> str:
    """A page from one of our templates; everything that is not marked safe is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "num": wording.num,
        "count": lambda n: f"{n:,}",
        "percent": wording.percent,
        "seconds": wording.seconds,
        "money": wording.money,
    }
    environment.policies["json.dumps_kwargs"] = COMPACT_JSON
    return environment.get_template(template).render(**context)


def write(page: str, path: Path) -> Path:
    """Write a page without its empty lines, whole or not at all."""
    lines = [line.rstrip() for line in page.splitlines() if line.strip()]
    with atomic(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def to_html(notebook: Path, out: Path) -> Path:
    """Export an executed notebook as a self-contained page, and link it from the report.

    Code is folded and formulas are MathML: the page asks for nothing from the network.
    """
    nb = nbformat.read(notebook, as_version=4)
    exporter = _Exporter(
        template_name=NOTEBOOK_TEMPLATE,
        extra_template_basedirs=[str(TEMPLATES)],
        extra_template_paths=[str(TEMPLATES)],
        mathjax_url="",
        require_js_url="",
        exclude_anchor_links=True,
    )
    title = _first_heading(nb) or out.stem
    page, _ = exporter.from_notebook_node(nb, {"title": title, "error": _first_error(nb)})
    with atomic(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    link_notebooks(out.parent)
    return out


def notebook_links(folder: Path) -> list[dict]:
    """File, number and title of every notebook's page in a report's folder."""
    links = []
    for path in sorted(folder.glob("[0-9][0-9]_*.html")):
        links.append({"file": path.name, "number": path.name[:2], "title": page_title(path)})
    return links


def link_notebooks(folder: Path) -> None:
    """Bring the report's list of notebooks up to date: most pages are written after the report."""
    index = folder / "index.html"
    if index.exists():
        links = render("notebooks.html.j2", notebooks=notebook_links(folder))
        write(LINKS.sub(lambda _: links, index.read_text(encoding="utf-8")), index)


def write_index(reports: Path) -> Path:
    """List every data set's report in `reports/index.html`."""
    entries = []
    for path in sorted(reports.glob("*/index.html")):
        page = path.read_text(encoding="utf-8")
        metas = re.findall(r'<meta name="(description|kind)" content="(.*?)">', page)
        facts = {name: unescape(text) for name, text in metas}
        entries.append({"folder": path.parent.name, "title": page_title(path), **facts})
    page = render("reports_index.html.j2", reports=entries)
    return write(page, reports / "index.html")


def page_title(path: Path) -> str:
    """What stands in a page's title element; else the file's name."""
    page = path.read_text(encoding="utf-8")
    match = re.search(r"<title>(.*?)</title>", page, re.DOTALL)
    return unescape(match[1]).strip() if match else path.stem


def _first_heading(nb: nbformat.NotebookNode) -> str:
    """The text of a notebook's first heading; '' without one."""
    for cell in nb.cells:
        heading = re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and heading:
            return re.sub(r"[*`_$]", "", heading[1]).strip()
    return ""


def _first_error(nb: nbformat.NotebookNode) -> str:
    """The first error of a notebook in one line; '' if it ran through."""
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {output.evalue}"
    return ""


class _Renderer(IPythonRenderer):
    """Markdown whose formulas become MathML: no page may ask a remote MathJax for help."""

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return _mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


class _Inline(MathInlineParser):
    # Pandoc's rule: no blank just inside the dollars and no digit after them,
    # so that "$5 or $10" stays text.
    SPECIFICATION = {
        **MathInlineParser.SPECIFICATION,
        "inline_math_tex": (
            r"(?<![$\\])\$(?![\s$])(?P<math_inline_tex>(?:\\.|[^$\\])+?)(?<!\s)\$(?![\d$])"
        ),
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
        mathml = convert(tex.strip(), display=display)
    except Exception:  # a command that the converter does not know is still readable as TeX
        return f"<code>{IPythonRenderer().escape_html(tex)}</code>"
    return mathml.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
