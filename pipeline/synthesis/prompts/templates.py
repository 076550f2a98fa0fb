"""Jinja templates over the columns of a seed row, rendered into prompts.

A template is a `RowTemplate` (pipeline/templates/row_template.py) with one more name:

    shots                 the row's worked examples: {% for shot in shots %}…{% endfor %}
"""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from actors.protocol.plain_text import quoted
from pipeline.errors import ConfigError
from pipeline.synthesis.rejections import Rejection
from pipeline.templates.row_template import ROW, Row, RowTemplate, RowTemplateError

SHOTS = "shots"


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """A template as the user writes it.

    Raises:
        ConfigError: the weight is not a number above 0.
    """

    name: str
    text: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(
                f"--templates: {self.name}: weight: expected a number above 0, got "
                f"{quoted(self.weight)}"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class PromptTemplate:
    """A compiled template."""

    def __init__(self, spec: TemplateSpec) -> None:
        """Compiles the template.

        Raises:
            ConfigError: the template has a syntax error (with its line), or refers to other files.
        """
        self.spec = spec
        self._template = RowTemplate(spec.text, f"--templates: {spec.name}")

    @property
    def names(self) -> frozenset[str]:
        """Names that the template takes from its context."""
        return self._template.names

    def check(self, columns: Collection[str], *, shots: bool) -> None:
        """Checks that every name of the template has a value.

        Args:
            columns: columns of the seeds.
            shots: whether there are worked examples.

        Raises:
            ConfigError: an unknown column, or `shots` without --shots.
        """
        if SHOTS in self.names and not shots and SHOTS not in columns:
            raise ConfigError(
                f"--templates: {self.spec.name}: it uses 'shots', but --shots is not given"
            )
        self._template.check_names(self.names - {ROW, SHOTS}, columns, "the seeds")

    def render(self, row: Row, shots: Sequence[Row]) -> str | Rejection:
        """Returns the prompt of a row, or the reason why it has none."""
        try:
            return self._template.render(row, {SHOTS: shots})
        except RowTemplateError as error:
            return Rejection("template", error.reason, error.detail)
