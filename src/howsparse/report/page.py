"""The report page: one HTML file that shows how sparse one network can get. It needs no network and no server."""

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

from howsparse.errors import InputError
from howsparse.files import refuse_to_overwrite, write_whole
from howsparse.report.contents import Contents, page_numbers
from howsparse.report.page_text import answers_table, curve_table, facts_list, lede, sections, sentence

__all__ = ["check_page", "page", "write_page"]

_TEMPLATE = Path(__file__).parent / "template"
_SCRIPTS = ("answers.js", "charts.js", "page.js")


def write_page(contents: Contents, path: str | Path, *, force: bool = False) -> None:
    """Write the report page of one network.

    Args:
        contents: what the page shows.
        path: the file, which ends in .html.
        force: whether an existing file is replaced.

    Raises:
        InputError: the file exists and ``force`` is False, or its name does not end in .html.
    """
    path = Path(path)
    check_page(path, force)
    text = page(contents)
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def check_page(path: Path, force: bool) -> None:
    """Check the file of a page before long work.

    Raises:
        InputError: as for `write_page`.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path} is not an .html file; a report page is one HTML file, such as report.html")
    refuse_to_overwrite(path, force)


def page(contents: Contents) -> str:
    """The report page as HTML. Text of the user, such as the network's name, stays text.

    Args:
        contents: what the page shows.
    """
    style = (_TEMPLATE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((_TEMPLATE / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    parts = {
        "title": escape(contents.title),
        "sentence": escape(sentence(contents)),
        "lede": escape(lede(contents)),
        "answers_note": _ANSWERS_NOTE,
        "answers_table": answers_table(contents),
        "curve_table": curve_table(contents),
        "sections": sections(contents),
        "facts": facts_list(contents),
        "footer": _FOOTER,
        "numbers": _embedded(page_numbers(contents)),
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
    }
    # One pass over the template, so that nothing that is filled in is looked at again.
    first, *others = (_TEMPLATE / "page.html").read_text(encoding="utf-8").split("{{")
    pieces = [part.partition("}}") for part in others]
    return first + "".join(parts[name] + after for name, _, after in pieces)


_ANSWERS_NOTE = (
    'Each answers another question, so they differ. <span class="on-screen">They move with the slider.</span>'
)
_FOOTER = (
    "Made by howsparse. A prediction is no promise, and the limit is about random subspaces under a quadratic model of"
    " the loss. Only what is certified holds for data that were not evaluated."
)


def _embedded(numbers: dict[str, Any]) -> str:
    """Numbers and texts as JSON that cannot close the script element around it."""
    text = json.dumps(numbers, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    """The hash by which the page's security policy knows its own style and script, and refuses all others."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
