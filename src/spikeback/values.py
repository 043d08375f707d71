"""Values that users write: names, whole numbers, and frozen values as text, "Tanh(k=3.0)" <-> Tanh(k=3.0)."""

import ast
import dataclasses
import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, TypeVar, cast

from spikeback.errors import UsageError

T = TypeVar("T")


def near(name: object, names: Iterable[object]) -> str:
    """The hint " (did you mean 'demo'?)" where one of the names is close to an unknown one, else nothing."""
    known = {str(each).lower().lstrip("-"): str(each) for each in names}  # the dashes of options are no likeness
    word = str(name).strip().lower().lstrip("-")
    close = get_close_matches(word, known, 5) or [each for each in known if len(word) > 2 and word in each]
    swapped = [each for each in close if sorted(each) == sorted(word)]  # 81 for 18 is nearer than 19
    return f" (did you mean {known[(swapped or close)[0]]!r}?)" if close else ""


def instead(name: object, names: Iterable[object]) -> str:
    """How to end a message on an unknown name: the hint, and the choices."""
    names = list(names)
    return f"{near(name, names)}; choose from {', '.join(map(str, names))}"


def is_number(value: object) -> bool:
    """Whether this is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Raises UsageError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise UsageError(f"{name} must be at least {least}, not {value}")


def choices(base: type[T]) -> dict[str, type[T]]:
    """The subclasses of `base` by lower-case name."""
    return {cls.__name__.lower(): cls for cls in base.__subclasses__()}


def from_text(text: str, base: type[T]) -> T:
    """Read a frozen dataclass derived from `base`: `Tanh(k=3.0)`, `tanh(3)` or plain `tanh` (its defaults).

    Raises:
        UsageError: another name, or arguments that it does not take; lists the choices.
    """
    names = ", ".join(sorted(cls.__name__ for cls in choices(base).values()))
    try:
        call = ast.parse(text.strip(), mode="eval").body
        name = call.func if isinstance(call, ast.Call) else call
        if not isinstance(name, ast.Name) or name.id.lower() not in choices(base):
            hint = near(text.partition("(")[0], choices(base))
            raise UsageError(f"no {base.__name__.lower()} {text!r}{hint}; choose from {names}, e.g. {example(base)!r}")
        args = [ast.literal_eval(a) for a in call.args] if isinstance(call, ast.Call) else []
        named = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg} if isinstance(call, ast.Call) else {}
        return _floats(choices(base)[name.id.lower()](*args, **named))
    except UsageError:
        raise
    except (SyntaxError, ValueError, TypeError) as error:
        known = choices(base).get(text.partition("(")[0].strip().lower())
        right = repr(known()) if known else example(base)
        raise UsageError(f"cannot read {text!r} as a {base.__name__.lower()}, e.g. {right!r}") from error


def example(base: type) -> str:
    """One value of the family, written out."""
    return repr(next(iter(choices(base).values()))())


def _floats(value: T) -> T:
    """The same with whole numbers as floats, so that Evolutionary(1) is Evolutionary(1.0). Raises TypeError."""
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(cast(Any, value))}
    kinds = {f.name: type(f.default) for f in dataclasses.fields(cast(Any, value))}
    for name, given in fields.items():
        if isinstance(given, bool) != (kinds[name] is bool):
            raise TypeError(f"{name} must be a {kinds[name].__name__}")
    return type(value)(**{name: kinds[name](given) for name, given in fields.items()})


def json_ready(value: Any) -> Any:
    """The same nested lists and dictionaries with None for every number that is not finite, which JSON has not."""
    if isinstance(value, dict):
        return {k: json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
