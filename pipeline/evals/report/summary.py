"""The result of an evaluation for other programs: Markdown for chats, JUnit XML for CI systems.

Both hold the headline metrics and their comparisons; a regression is a failed test case.
"""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from pipeline.evals.evaluation import Comparison, Evaluation
from pipeline.evals.history import Entry, run_name
from pipeline.evals.report.plots import metric_name

# of plain text in Markdown; a name may hold any of them
MARKDOWN_CHARACTERS = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>()#+!|~"})


def markdown(evaluation: Evaluation, report: str) -> str:
    """Returns the result as a heading, a verdict and a table.

    Args:
        evaluation: the run.
        report: URL of report.html.
    """
    info = evaluation.info
    regressions = len(evaluation.regressions)
    verdict = "nothing to compare with"
    if regressions:
        verdict = f"**regression** in {regressions} of {len(evaluation.comparisons)} comparisons"
    elif evaluation.comparisons:
        verdict = f"no regression in {len(evaluation.comparisons)} comparisons"

    lines = [
        f"### Evaluation {_escaped(run_name(info.name, info.reported_at))}: {verdict}",
        "",
        "| metric | value | against | points | interval | p | |",
        "|---|---|---|---|---|---|---|",
        *_rows(evaluation),
        "",
    ]
    if evaluation.failed:
        lines += [f"{evaluation.failed:,} rows failed; their documents count as wrong.", ""]
    lines += [f"Report: {_escaped(report)}", ""]
    return "\n".join(lines)


def _rows(evaluation: Evaluation) -> Iterator[str]:
    for entry in evaluation.headlines:
        metric = _escaped(metric_name(entry.task, entry.metric))
        value = f"{100 * entry.value:.2f} %"
        if entry.stderr is not None:
            value += f" ± {100 * entry.stderr:.2f}"
        comparisons = _comparisons_of(entry, evaluation)
        if not comparisons:
            yield f"| {metric} | {value} | | | | | |"
        for comparison in comparisons:
            difference = comparison.difference
            mark = "**regression**" if difference.regression else ""
            against = _escaped(f"{comparison.against}, {comparison.before.run_name}")
            interval = f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
            yield (
                f"| {metric} | {value} | {against} | {100 * difference.value:+.2f} | {interval} | "
                f"{difference.p_adjusted:.3g} | {mark} |"
            )


def junit(evaluation: Evaluation) -> bytes:
    """Returns the result as JUnit XML: a suite per metric, a case per comparison.

    A metric without a comparison is a case that passes.
    """
    root = ET.Element("testsuites")
    for entry in evaluation.headlines:
        comparisons = _comparisons_of(entry, evaluation)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_printable(metric_name(entry.task, entry.metric)),
            tests=str(max(len(comparisons), 1)),
            failures=str(sum(comparison.difference.regression for comparison in comparisons)),
        )
        properties = ET.SubElement(suite, "properties")
        figures = {
            "value": entry.value,
            "stderr": entry.stderr,
            "documents": entry.count,
            "failed": entry.failed,
        }
        for name, figure in figures.items():
            if figure is not None:
                ET.SubElement(properties, "property", name=name, value=str(figure))
        if not comparisons:
            ET.SubElement(suite, "testcase", classname=entry.task, name="nothing to compare with")
        for comparison in comparisons:
            _add_case(suite, comparison)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _add_case(suite: ET.Element, comparison: Comparison) -> None:
    difference = comparison.difference
    name = _printable(f"against the {comparison.against} run, {comparison.before.run_name}")
    case = ET.SubElement(suite, "testcase", classname=comparison.now.task, name=name)
    if not difference.regression:
        return
    message = (
        f"{100 * difference.value:+.2f} points ({100 * difference.low:+.2f} to "
        f"{100 * difference.high:+.2f}), more than the accepted {100 * difference.margin:g}; p = "
        f"{difference.p_adjusted:.3g}, adjusted"
    )
    ET.SubElement(case, "failure", message=message, type="regression")


def _comparisons_of(entry: Entry, evaluation: Evaluation) -> list[Comparison]:
    comparisons = []
    for comparison in evaluation.comparisons:
        now = comparison.now
        if now.task == entry.task and now.metric == entry.metric:
            comparisons.append(comparison)
    return comparisons


def _escaped(text: str) -> str:
    return _printable(text).translate(MARKDOWN_CHARACTERS)


def _printable(text: str) -> str:
    """Returns a text without characters that XML and tables cannot hold."""
    return "".join(char if char.isprintable() else " " for char in text)
