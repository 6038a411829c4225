"""The templates of all pages, in `templates/`: what they insert is escaped, and a page can load nothing but itself."""

import base64
import hashlib
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

RAMP = ("#000004", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")
"""The colours of an error, from 0 to the largest shown, at equal distances; their lightness increases evenly."""


def template(name: str) -> Template:
    """The template of this file name; a name that it uses and does not get is an error."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rediffuse.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["digest"] = _digest
    style = environment.get_template("style.css").render(ramp=", ".join(RAMP))
    environment.globals |= {"style": style, "script": None, "pictures_from": "data:"}
    return environment


def _digest(text: str) -> str:
    """The name by which a content security policy allows a style or a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
