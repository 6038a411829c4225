"""The templates of all pages, in `templates/`: what they insert is escaped, and a page can load nothing but itself."""

import base64
import hashlib
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

RAMP = ("#000004", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")
"""The colours of an error, from 0 to the largest shown, at equal distances; their lightness increases evenly."""


def template(name: str) -> Template:
    """The template of this file name; a name that it uses and does not get is an error."""
    return environment().get_template(name)


def policy(style: str, script: str | None, pictures_from: str, sends_to: str) -> str:
    """The content security policy of a page: it loads nothing but what is named here.

    Args:
        style: the style sheet in the page.
        script: the script in the page; None for none.
        pictures_from: the sources of its pictures.
        sends_to: where its forms and its script may send requests to.
    """
    scripts = "" if script is None else f"script-src '{_digest(script)}'; connect-src {sends_to}; "
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; {scripts}img-src {pictures_from}; base-uri 'none'; "
        f"form-action {sends_to}"
    )


@cache
def environment(*packages: str) -> Environment:
    """The templates of these packages, and those of the report, which they can use and extend."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "rediffuse.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    style = environment.get_template("style.css").render(ramp=", ".join(RAMP))
    environment.globals |= {"style": style, "script": None, "pictures_from": "data:", "sends_to": "'none'"}
    environment.globals |= {"referrer": "no-referrer", "policy": policy}
    return environment


def _digest(text: str) -> str:
    """The name by which a content security policy allows a style or a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
