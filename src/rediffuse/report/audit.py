"""The report of an audit: as text for a terminal, and as one HTML file without scripts or references to other files."""

from collections.abc import Iterator

from rediffuse.detection.audit import THUMBNAIL, AuditReport
from rediffuse.detection.duplicates import Duplicate
from rediffuse.detection.leaks import FEWEST, REVEALS
from rediffuse.detection.metrics import Interval
from rediffuse.images.decode import printable
from rediffuse.report.render import template

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
    swap = report.swap
    return template("audit.html").render(
        verdict="can" if report.can_carry_a_claim else "cannot",
        conclusion=_sentence(report.line),
        counts=_counts(report),
        reveals=REVEALS,
        aucs=list(_aucs(report)),
        differences=[(one.statement, f"{one.generated:.0%}", f"{one.real:.0%}") for one in report.differences],
        swap=swap and f"{swap.num_real} real and {swap.num_generated} generated files: {swap}",
        duplicate_counts=_sentence(_duplicate_counts(report)),
        duplicates=[(_kind(one), ", ".join(map(printable, one.files))) for one in report.duplicates],
        unreadable=report.unreadable,
        caveat=CAVEAT,
    )


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
