"""Functions as operators of PyTorch's dispatcher: named, traceable, differentiable.

`torch.library.custom_op` makes them too, but looks at every operand of every call in Python, which takes longer than
many a kernel.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from spikeback.ops.private import arguments_of, below_autograd, in_forward_mode, opaque

LIBRARY = torch.library.Library("spikeback", "FRAGMENT")
Function = Callable[..., Any]
_formulas: dict[Any, tuple[Function, Function]] = {}


def define(*, mutates: Iterable[str] = ()) -> Callable[[Function], Any]:
    """Decorator: `torch.ops.spikeback.<name>` of a function with annotated arguments, some of which it may change.

    `fake` and `differentiate` add to it.
    """

    def add(function: Function) -> Any:
        name, schema = function.__name__, torch.library.infer_schema(function, mutates_args=tuple(mutates))
        LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        LIBRARY.impl(name, opaque(function), "CompositeExplicitAutograd")
        op = getattr(torch.ops.spikeback, name).default
        op.__doc__ = function.__doc__
        arguments, differentiable = arguments_of(op), _differentiable(name, op)
        defaults = [argument.default_value for argument in arguments]
        changed = [i for i, argument in enumerate(arguments) if argument.alias_info and argument.alias_info.is_write]

        def kernel(*inputs: Any) -> Any:
            inputs += tuple(defaults[len(inputs) :])  # the dispatcher leaves out what equals its default
            if in_forward_mode() and any(map(_has_tangent, inputs)):
                raise NotImplementedError(
                    f"{op} has no forward-mode derivative; use backward(), or torch.autograd.grad"
                )
            if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
                output = differentiable.apply(*inputs)
            else:
                with below_autograd():
                    output = op(*inputs)
            if changed:
                torch.autograd.graph.increment_version([inputs[i] for i in changed if inputs[i] is not None])
            return output

        LIBRARY.impl(name, opaque(kernel), "Autograd")
        return op

    return add


def fake(op: Any) -> Callable[[Function], Function]:
    """Decorator: results of the right shape, type and layout without values, for tracing."""
    return torch.library.register_fake(op, lib=LIBRARY)


def differentiate(op: Any, save: Function, backward: Function) -> None:
    """Give an operator its gradient, in which arguments go by their names.

    Args:
        op: the operator.
        save: (ctx, arguments by name, output), as `setup_context` of autograd.Function.
        backward: (ctx, the names of what needs a gradient, *gradients of the outputs) -> gradients by name.
    """
    _formulas[op] = save, backward


def _has_tangent(value: Any) -> bool:
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None


def _differentiable(name: str, op: Any) -> Any:
    names = [argument.name for argument in arguments_of(op)]

    def forward(ctx: Any, *inputs: Any) -> Any:
        with below_autograd():
            output = op(*inputs)
        if op in _formulas:
            _formulas[op][0](ctx, dict(zip(names, inputs, strict=True)), output)
        return output

    def backward(ctx: Any, *grads: Any) -> Any:
        if op not in _formulas:
            raise RuntimeError(f"{op} has no gradient; inside spikeback.nn.plain() everything has one")
        needed = {name for name, needs in zip(names, ctx.needs_input_grad, strict=True) if needs}
        found = _formulas[op][1](ctx, needed, *grads)
        for lacking in needed:
            if found.get(lacking) is None:  # autograd would take it for "does not depend on it"
                raise RuntimeError(f"{op} has no gradient for {lacking}: pass {lacking}.detach()")
        return tuple(map(found.get, names))

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    kind: Any = type(torch.autograd.Function)
    return kind(name, (torch.autograd.Function,), methods)  # so named in profiles
