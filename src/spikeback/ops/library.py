"""Functions as operators of PyTorch's dispatcher: named, traceable, differentiable.

`torch.library.custom_op` makes them too, but looks at every operand of every call in Python, which with two dozen of
them takes longer than many a kernel.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

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
        LIBRARY.impl(name, _opaque(function), "CompositeExplicitAutograd")
        op = getattr(torch.ops.spikeback, name).default
        op.__doc__ = function.__doc__
        arguments, differentiable = op._schema.arguments, _differentiable(name, op)
        defaults = [argument.default_value for argument in arguments]
        changed = [i for i, argument in enumerate(arguments) if argument.alias_info and argument.alias_info.is_write]

        def kernel(*inputs: Any) -> Any:
            inputs += tuple(defaults[len(inputs) :])  # the dispatcher leaves out what equals its default
            if forward_ad._current_level >= 0 and any(map(_has_tangent, inputs)):
                raise NotImplementedError(
                    f"{op} has no forward-mode derivative; use backward(), or torch.autograd.grad"
                )
            if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
                output = differentiable.apply(*inputs)
            else:
                with torch._C._AutoDispatchBelowAutograd():
                    output = op(*inputs)
            if changed:
                torch.autograd.graph.increment_version([inputs[i] for i in changed if inputs[i] is not None])
            return output

        LIBRARY.impl(name, _opaque(kernel), "Autograd")
        return op

    return add


def _opaque(function: Function) -> Function:
    """Nothing for Dynamo to look into; where it was never imported nobody looks, and importing it takes seconds."""
    hidden = torch._disable_dynamo(function)  # pyright: ignore[reportPrivateImportUsage]
    return lambda *inputs: (hidden if "torch._dynamo" in sys.modules else function)(*inputs)


def fake(op: Any) -> Callable[[Function], Function]:
    """Decorator: results of the right shape, type and layout without values, for tracing."""
    return torch.library.register_fake(op, lib=LIBRARY)


def differentiate(op: Any, setup: Function, backward: Function) -> None:
    """Give an operator its gradient: `setup(ctx, inputs, output)`, `backward(ctx, *grads)`, as in autograd.Function."""
    _formulas[op] = setup, backward


def _has_tangent(value: Any) -> bool:
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None


def _differentiable(name: str, op: Any) -> Any:
    def forward(ctx: Any, *inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            output = op(*inputs)
        if op in _formulas:
            _formulas[op][0](ctx, inputs, output)
        return output

    def backward(ctx: Any, *grads: Any) -> Any:
        if op not in _formulas:
            raise RuntimeError(f"{op} has no gradient; inside spikeback.nn.plain() everything has one")
        result = _formulas[op][1](ctx, *grads)
        for argument, needed, grad in zip(op._schema.arguments, ctx.needs_input_grad, result, strict=True):
            if needed and grad is None:  # autograd would take it for "does not depend on it"
                raise RuntimeError(f"{op} has no gradient for {argument.name}: pass {argument.name}.detach()")
        return result

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    kind: Any = type(torch.autograd.Function)
    return kind(name, (torch.autograd.Function,), methods)  # so named in profiles
