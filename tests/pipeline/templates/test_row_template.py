"""Templates over the columns of a row; what they render is in tests of the prompts' templates."""

import pytest

from pipeline.errors import ConfigError
from pipeline.templates.row_template import RowTemplate, RowTemplateError


def test_row_template_lists_columns_that_are_taken_from_row() -> None:
    template = RowTemplate('{{ a }} {{ row["my column"] }} {{ row.b }} {{ row.items() }}', "label")
    assert template.names == {"a", "row"}
    assert template.row_columns == {"my column", "b"}


def test_row_template_names_missing_column_and_those_that_exist() -> None:
    template = RowTemplate("{{ questoin }}", "--template")
    with pytest.raises(ConfigError) as raised:
        template.check_names(template.names, ["question", "answer"], "the rows")
    assert str(raised.value) == (
        "--template: the rows have no column 'questoin'; did you mean 'question'?"
    )


def test_row_template_error_names_null_columns_of_row() -> None:
    template = RowTemplate('{{ row["my column"] }}', "--template")
    with pytest.raises(RowTemplateError, match=r"null_value: null.*: my column"):
        template.render({"my column": None}, {})
