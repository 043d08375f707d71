"""Kinds of neurons, norms and blocks by name, and as text: "PLIF(tau=2.0)"."""

import ast
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from spikeback.errors import UsageError
from spikeback.ops.surrogate import Surrogate
from spikeback.values import from_text, instead

T = TypeVar("T", bound=Callable[..., Any])


class Registry:
    """What can be asked for by name.

    Args:
        what: one of them in an error, e.g. "neuron".
        leading: how many arguments the networks give, so that the text gives those behind them.
    """

    def __init__(self, what: str, leading: int = 0) -> None:
        self.what, self.leading = what, leading
        self.known: dict[str, Callable[..., Any]] = {}

    def register(self, make: T, name: str | None = None) -> T:
        """Make a class (or any function that makes a module) available by name; `@register` above a class does it too.

        Raises:
            UsageError: the name is taken by another.
        """
        name = name or make.__name__
        known = self.known.setdefault(name.lower(), make)
        if (known.__module__, known.__qualname__) != (make.__module__, make.__qualname__):
            raise UsageError(f"{self.what} {name!r} exists: {known.__module__}.{known.__qualname__}; take another name")
        self.known[name.lower()] = make  # of a module that was loaded again
        return make

    def names(self) -> list[str]:
        """The names that can be asked for."""
        return [name if make.__name__.lower() != name else make.__name__ for name, make in self.known.items()]

    def read(self, text: str) -> tuple[Callable[..., Any], dict[str, Any]]:
        """What "PLIF(tau=2.0)" names, and the arguments it gives. Values are literals or surrogates.

        Raises:
            UsageError: another name, or arguments that it does not take.
        """
        name, bracket, rest = text.strip().partition("(")
        make = self.known.get(name.strip().lower())
        if make is None:
            raise UsageError(f"no {self.what} {name!r}{instead(name, self.names())}")
        try:
            call: Any = ast.parse(f"f({rest}" if bracket else "f()", mode="eval").body
            given = [_value(value) for value in call.args]
            named = {str(word.arg): _value(word.value) for word in call.keywords}
            signature = inspect.signature(make)
            own = signature.replace(parameters=list(signature.parameters.values())[self.leading :])
            return make, dict(own.bind_partial(*given, **named).arguments)
        except (SyntaxError, ValueError, TypeError, AttributeError) as error:
            takes = ", ".join(self._takes(make)) or "nothing"
            raise UsageError(
                f"cannot read {text!r} as a {self.what} ({error}); {name.strip()} takes {takes}"
            ) from error

    def maker(self, text: str, **open_arguments: Any) -> Callable[..., Any]:
        """What makes it; `open_arguments` are for those that the text leaves open, if it takes them."""
        make, given = self.read(text)
        takes = self._takes(make)
        filled = {name: value for name, value in open_arguments.items() if name in takes}
        return _explained(text, partial(make, **filled | given))

    def _takes(self, make: Callable[..., Any]) -> list[str]:
        """The arguments that a text can give."""
        return list(inspect.signature(make).parameters)[self.leading :]


def _explained(text: str, make: Callable[..., Any]) -> Callable[..., Any]:
    def made(*args: Any, **more: Any) -> Any:
        try:
            return make(*args, **more)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{text}: {error}") from error

    return made


def _value(node: ast.expr) -> Any:
    """A literal, or a surrogate with or without brackets."""
    if isinstance(node, ast.Call | ast.Name):
        return from_text(ast.unparse(node), Surrogate)
    return ast.literal_eval(node)
