"""Groups of options: a command takes a dataclass whole, typer gets one parameter for each of its fields.

A field is written as typer wants a parameter, `threads: Annotated[int | None, typer.Option(...)] = None`. The command
takes the group by keyword:

    def plan(*, load: LoadOptions = LoadOptions(), answer: Annotated[AnswerOptions, Without("seed")] = ...) -> None:

The group's default says the defaults of its options. Knows no option; those are in _options.py.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Annotated, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Without:
    """In `Annotated[Group, Without("seed")]`: options that this command does not offer; they keep their default."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True)
class _Taken:
    """A group as one command takes it: its default, and the fields that are options of the command."""

    default: DataclassInstance
    hints: dict[str, object]  # field -> annotation

    def parameters(self) -> Iterator[inspect.Parameter]:
        for name, hint in self.hints.items():
            default = getattr(self.default, name)
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)

    def build(self, given: dict[str, object]) -> DataclassInstance:
        return replace(self.default, **{name: given.pop(name) for name in self.hints})


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer takes it: an option for each field of its groups, in their place and order."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, _Taken] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        group = _group(hints[name], parameter.default)
        if group is None:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            groups[name] = group
            parameters += group.parameters()

    @functools.wraps(command)
    def run(**given: object) -> None:
        built = {name: group.build(given) for name, group in groups.items()}
        command(**given, **built)

    run.__dict__["__signature__"] = inspect.Signature(parameters)  # what inspect, and so typer, reads
    return run


def _group(hint: object, default: object) -> _Taken | None:
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if not is_dataclass(kind) or not isinstance(kind, type):
        return None
    hidden = {name for note in notes if isinstance(note, Without) for name in note.names}
    unknown = hidden - {field.name for field in fields(kind)}
    assert not unknown, f"{kind.__name__} has no {unknown}"
    hints = get_type_hints(kind, include_extras=True)
    shown = {field.name: hints[field.name] for field in fields(kind) if field.name not in hidden}
    return _Taken(default if isinstance(default, kind) else kind(), shown)
