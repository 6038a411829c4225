"""A folder of evidence as one HTML page without scripts and external files, so it can be read offline."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from rediffuse.detection.verdict import Verdict
from rediffuse.files import write_bytes
from rediffuse.report.words import CAUTION, meanings, summary

INDEX = "index.html"
DECISIONS = ("generated", "unsure", "real", "not judged")


def picture_name(verdict: Verdict) -> str:
    """The path of the evidence picture in the folder of evidence; unique, because the names of files are."""
    return f"{verdict.file}.png"


def write_page(folder: Path, verdicts: Sequence[Verdict]) -> Path:
    """Write `folder/index.html`, which shows the pictures in the same folder (`picture_name`), and return its path.

    Raises:
        StorageError: the page cannot be written.
    """
    path = folder / INDEX
    write_bytes(path, page(verdicts).encode())
    return path


def page(verdicts: Sequence[Verdict]) -> str:
    """The HTML of the page: a header with counts and a filter, then one card per verdict in the given order."""
    counts = Counter(verdict.decision or "not judged" for verdict in verdicts)
    filters = _filter("all", len(verdicts), " checked")
    filters += "".join(_filter(name, counts[name]) for name in DECISIONS if counts[name])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>rediffuse: {escape(summary(verdicts))}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>Reconstruction errors</h1>
<p>{escape(summary(verdicts))}. A diffusion model turned each image into noise and reconstructed it; each picture shows
the reconstruction error, and which frequency bands influenced the result.</p>
{_meanings(verdicts)}<p class="caution">{escape(CAUTION)}</p>
<fieldset><legend>Show</legend>{filters}</fieldset>
</header>
<main>
{"".join(map(_card, verdicts))}</main>
</body>
</html>
"""


def _meanings(verdicts: Sequence[Verdict]) -> str:
    """What the decisions mean, as a list; nothing where no file was judged."""
    judged = next((verdict for verdict in verdicts if verdict.judged), None)
    if judged is None:
        return ""
    items = (
        f'<dt class="{name}"><strong>{name}</strong></dt><dd>{escape(text[0].upper() + text[1:])}</dd>'
        for name, text in meanings(judged).items()
    )
    return f"<dl>{''.join(items)}</dl>\n"


def _filter(name: str, count: int, checked: str = "") -> str:
    return f'<label><input type="radio" name="show" value="{_css_class(name)}"{checked}> {name} ({count})</label>'


def _card(verdict: Verdict) -> str:
    decision = verdict.decision or "not judged"
    facts = []
    if verdict.probability is not None:
        facts.append(f"probability {verdict.probability:.3f}")
    if verdict.mean_dire is not None:
        facts.append(f"mean error {verdict.mean_dire:.4f}")
    name = escape(verdict.file)
    reason = f"<p>{escape(verdict.reason)}</p>\n" if verdict.reason else ""
    picture = ""
    if verdict.judged:
        address = quote(picture_name(verdict))
        picture = f'<a href="{address}"><img loading="lazy" src="{address}" alt="evidence for {name}"></a>\n'
    return f"""<article class="{_css_class(decision)}">
<h2>{name}</h2>
<p><strong>{decision}</strong> {escape(", ".join(facts))}</p>
{reason}{picture}</article>
"""


def _css_class(decision: str) -> str:
    return decision.replace(" ", "-")


_FILTER_RULES = "\n".join(
    f'body:has(input[value="{name}"]:checked) article:not(.{name}) {{ display: none }}'
    for name in map(_css_class, DECISIONS)
)

_STYLE = f"""
:root {{ --paper: #fff; --ink: #1b1b1b; --faint: #5c5c5c; --line: #ddd; --generated: #b34700; --real: #00609c }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #16181b; --ink: #ececec; --faint: #a9a9a9; --line: #3a3d42; --generated: #ff9450; --real: #6cc0ff }}
}}
* {{ box-sizing: border-box }}
body {{ margin: 0 auto; max-width: 1500px; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }}
h1 {{ margin: 0; font-size: 1.6rem }}
h2 {{ margin: 0; font-size: 1rem; overflow-wrap: anywhere }}
header p {{ max-width: 48rem }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem .75rem; max-width: 48rem }}
dd {{ margin: 0 }}
.caution {{ color: var(--faint) }}
fieldset {{ display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; border: 1px solid var(--line); border-radius: .5rem }}
main {{ display: grid; gap: 1rem; margin-top: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)) }}
article {{ border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; min-width: 0 }}
article p {{ margin: .25rem 0; overflow-wrap: anywhere }}
article strong {{ margin-right: .5rem }}
.generated strong {{ color: var(--generated) }}
.real strong {{ color: var(--real) }}
img {{ display: block; width: 100%; aspect-ratio: 1500 / 984; border-radius: .25rem; background: #fff }}
{_FILTER_RULES}
"""
