"""The report of an audit: as text for a terminal, and as one HTML file without scripts or references to other files."""

from collections.abc import Iterator, Sequence
from html import escape

from rediffuse.detection.audit import THUMBNAIL, AuditReport
from rediffuse.detection.duplicates import Duplicate
from rediffuse.detection.leaks import FEWEST, REVEALS
from rediffuse.detection.metrics import Interval
from rediffuse.images.decode import printable

SHOWN = 10
"""Largest number of duplicates in the text; the page lists all."""
CAVEAT = (
    "The audit finds differences that are visible in the files: format, size, compression, metadata, and the grid of a "
    "JPEG. Other processing, such as resampling, is not found. The swap test (--detector) measures a detector itself."
)


def audit_text(report: AuditReport) -> str:
    """The audit as lines, the conclusion last, without a newline at the end."""
    return "\n".join(_text(report))


def audit_page(report: AuditReport) -> str:
    """The audit as an HTML document: the conclusion, the AUCs with bars, the differences, all duplicates."""
    verdict = "can" if report.can_carry_a_claim else "cannot"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>rediffuse audit: these data {verdict} carry a claim</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Audit</h1>
<p class="{verdict}">{escape(_sentence(report.line))}</p>
<p>{escape(_counts(report))}</p>
<h2>What reveals the class</h2>
<p>The cross-validated AUC of a classifier, with its 95 % interval. 0.5 is chance; 1 means that every file is classified
correctly. The class counts as revealed if the whole interval lies above {REVEALS}.</p>
{_table(("input of the classifier", "left out", "AUC", ""), _auc_rows(report))}
{_differences(report)}
{_swap(report)}
<h2>Duplicates</h2>
{_duplicates(report)}
{_unreadable(report)}
<p class="caveat">{escape(CAVEAT)}</p>
</body>
</html>
"""


def _text(report: AuditReport) -> Iterator[str]:
    yield _counts(report)
    yield ""
    for what, left_out, auc in _aucs(report):
        yield f"{what:<41}  {left_out:<6}  AUC {auc}"
    if report.facts is None:
        yield f"no AUC: a class has fewer than {FEWEST} readable files"
    for difference in report.differences:
        yield f"  {difference}"
    if report.swap is not None:
        yield f"swap test on {report.swap.num_real} real and {report.swap.num_generated} generated files: {report.swap}"
    yield ""
    yield _duplicate_counts(report)
    for duplicate in report.duplicates[:SHOWN]:
        yield f"  {_kind(duplicate)}: {', '.join(map(printable, duplicate.files))}"
    if len(report.duplicates) > SHOWN:
        yield f"  and {len(report.duplicates) - SHOWN} more; --out and --json list all"
    yield ""
    yield CAVEAT
    yield report.line


def _counts(report: AuditReport) -> str:
    examined = f"{report.num_real} real and {report.num_generated} generated files"
    if report.num_examined < report.num_found:
        examined += f", a sample of {report.num_found}"
    return f"{examined}; {len(report.unreadable)} could not be read" if report.unreadable else examined


def _aucs(report: AuditReport) -> Iterator[tuple[str, str, Interval]]:
    """The input of the classifier, what is left out, and the AUC."""
    for what, leak in (
        ("file: format, size, compression, metadata", report.facts),
        ("pixels: 8-pixel grid, as JPEG leaves it", report.grid),
        (f"subject: thumbnail of {THUMBNAIL} px", report.subject),
    ):
        if leak is not None:
            yield what, "files", leak.files
            if leak.groups is not None:
                yield what, "groups", leak.groups


def _duplicate_counts(report: AuditReport) -> str:
    if not report.duplicates:
        return "no duplicates"
    return (
        f"{len(report.duplicates)} pictures have duplicates; {report.num_across('classes')} files are in both "
        f"classes, {report.num_across('splits')} in several splits, {report.num_across('groups')} in several groups"
    )


def _kind(duplicate: Duplicate) -> str:
    kind = "the same file" if duplicate.same_bytes else "look alike"
    return f"{kind}, in several {' and '.join(duplicate.across)}" if duplicate.across else kind


def _sentence(line: str) -> str:
    return f"{line[0].upper()}{line[1:]}."


def _auc_rows(report: AuditReport) -> Iterator[Sequence[str]]:
    for what, left_out, auc in _aucs(report):
        yield escape(what), left_out, escape(str(auc)), _bar(auc)


def _bar(auc: Interval) -> str:
    """The interval on a line from 0 to 1, with marks at the value and at 0.5."""
    low, high, value = (f"{100 * number:.1f}" for number in (auc.low, auc.high, auc.value))
    width = f"{max(0.5, 100 * (auc.high - auc.low)):.1f}"
    return (
        f'<svg viewBox="0 0 100 8" role="img" aria-label="from {low} to {high} percent">'
        '<path class="line" d="M0 4H100M50 0V8"/>'
        f'<rect x="{low}" y="2" width="{width}" height="4"/><path class="value" d="M{value} 0V8"/></svg>'
    )


def _differences(report: AuditReport) -> str:
    if not report.differences:
        return ""
    rows = ((escape(one.statement), f"{one.generated:.0%}", f"{one.real:.0%}") for one in report.differences)
    return "<h2>How the files differ</h2>\n" + _table(("statement", "generated files", "real files"), rows)


def _swap(report: AuditReport) -> str:
    if report.swap is None:
        return ""
    counts = f"{report.swap.num_real} real and {report.swap.num_generated} generated files"
    return f"<h2>Swap test</h2>\n<p>{escape(counts)}: {escape(str(report.swap))}</p>"


def _duplicates(report: AuditReport) -> str:
    rows = (
        (escape(_kind(one)), "<br>".join(escape(printable(file)) for file in one.files)) for one in report.duplicates
    )
    counts = f"<p>{escape(_sentence(_duplicate_counts(report)))}</p>"
    return f"{counts}\n{_table(('kind', 'files'), rows)}" if report.duplicates else counts


def _unreadable(report: AuditReport) -> str:
    if not report.unreadable:
        return ""
    return f"<h2>Not read</h2>\n<ul>{''.join(f'<li>{escape(reason)}</li>' for reason in report.unreadable)}</ul>"


def _table(heading: Sequence[str], rows: "Iterator[Sequence[str]]") -> str:
    """`rows` hold HTML."""
    head = "".join(f"<th>{name}</th>" for name in heading)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


_STYLE = """
:root { --paper: #fff; --ink: #1b1b1b; --faint: #5c5c5c; --line: #ddd; --bad: #b34700; --good: #00609c }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #ececec; --faint: #a9a9a9; --line: #3a3d42; --bad: #ff9450; --good: #6cc0ff }
}
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.6rem }
h2 { font-size: 1.1rem }
.can, .cannot { padding: .75rem; border-left: .3rem solid; font-size: 1.1rem; overflow-wrap: anywhere }
.can { border-color: var(--good) }
.cannot { border-color: var(--bad) }
.caveat { color: var(--faint) }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere }
svg { display: block; width: 16rem; max-width: 100% }
.line { stroke: var(--line) }
rect { fill: var(--good) }
.value { stroke: var(--ink); stroke-width: 1 }
"""
