"""Shows the flags of a job as keyword arguments of a function, from their one declaration."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from jobs.cli.help_topics import topics_of

Function = TypeVar("Function", bound=Callable[..., Any])


def takes_flags(config_class: type[Any]) -> Callable[[Function], Function]:
    """Returns a decorator that shows the flags of a configuration as keyword arguments.

    They are in the signature and, with their help, in the docstring, as editors and `help` read
    them.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own_parameters = dict(signature.parameters)
        parameters = [own_parameters[name] for name in own_parameters if name != "flags"]
        fields = {field.name: field for field in dataclasses.fields(config_class)}
        names = [name for name in fields if name not in signature.parameters]
        parameters += [_parameter(fields[name]) for name in names]

        topics = getattr(config_class, "HELP_TOPICS", {})
        lines = [inspect.getdoc(function) or ""]
        for title, flags in topics_of(topics, tuple(names)).items():
            lines += ["", f"{title[0].upper()}{title[1:]}:"]
            lines += [f"    {name}: {fields[name].metadata['help']}" for name in flags]
        function.__doc__ = "\n".join(lines)
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return decorate


def _parameter(field: "dataclasses.Field[Any]") -> inspect.Parameter:
    """Returns the keyword argument of a flag."""
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type
    )
