"""From an interface's names to types that pass values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shimd.wit import syntax
from shimd.wit.compound import UNIT, Enum, Expected, Option, Record, Tuple, Variant
from shimd.wit.syntax import Interface, Ref
from shimd.wit.types import Bool, Bytes, Char, Handle, ListOf, Scalar, String, Type

#: More numbers than these would be passed in memory; no interface here has as many.
_MOST_PARAMS = 16

_INTEGERS = {
    f"{sign}{8 << power}": form for sign, forms in (("s", "bhiq"), ("u", "BHIQ")) for power, form in enumerate(forms)
}
PRIMITIVE: Mapping[str, Type] = {
    "unit": UNIT,
    "bool": Bool(),
    "char": Char(),
    "string": String(),
    **{name: Scalar(form, "i64" if name.endswith("64") else "i32") for name, form in _INTEGERS.items()},
    "float32": Scalar("f", "f32"),
    "float64": Scalar("d", "f64"),
}


@dataclass(frozen=True)
class ResolvedFunction:
    """A function of an interface, with its core signature as a host's import (``indirect``: or a guest's export)."""

    symbol: str
    name: str
    resource: str | None
    static: bool
    params: Sequence[Type]
    result: Type

    @property
    def indirect(self) -> bool:
        """True if the result is more than one number. It goes through memory then, at an address that the caller of an
        import passes as the last parameter, and that an export returns."""
        return len(self.result.flat) > 1

    @property
    def flat_params(self) -> list[str]:
        return [kind for param in self.params for kind in param.flat]


def functions(interface: Interface) -> list[ResolvedFunction]:
    """Resolve the types of an interface's functions.

    :raises ValueError: a type is not defined, or passes in a way that no interface here needs
    """
    resolve = _Resolver(interface).type
    return [_function(function, resolve) for function in interface.functions]


def _function(function: syntax.Function, resolve: Callable[[Ref], Type]) -> ResolvedFunction:
    params = [resolve(param) for param in function.params.values()]
    made = ResolvedFunction(
        function.symbol, function.name, function.resource, function.static, params, resolve(function.result)
    )
    if len(made.flat_params) > _MOST_PARAMS:
        raise ValueError(f"{function.symbol} takes more than {_MOST_PARAMS} numbers")
    return made


class _Resolver:
    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._known: dict[Ref, Type] = {}

    def type(self, ref: Ref) -> Type:
        if ref not in self._known:
            self._known[ref] = self._made(ref)
        return self._known[ref]

    def _made(self, ref: Ref) -> Type:
        if ref.arguments:
            return self._generic(ref)
        if ref.name in PRIMITIVE:
            return PRIMITIVE[ref.name]
        if ref.name in self._interface.resources:
            return Handle(ref.name)
        if ref.name in self._interface.types:
            return self._defined(self._interface.types[ref.name])
        raise ValueError(f"{self._interface.name}.wit: the type {ref.name} is not defined")

    def _generic(self, ref: Ref) -> Type:
        arguments = [self.type(argument) for argument in ref.arguments]
        match ref.name, arguments:
            case "list", [element] if element.size:  # else its length would cost nothing
                return Bytes() if element is PRIMITIVE["u8"] else ListOf(element)
            case "option", [some]:
                return Option(some)
            case "expected", [ok, err]:
                return Expected(ok, err)
            case "tuple", parts:
                return Tuple(parts)
        raise ValueError(f"{self._interface.name}.wit: {ref.name} does not take {len(arguments)} types")

    def _defined(self, definition: syntax.Definition) -> Type:
        if definition.kind == "enum":
            return Enum(list(definition.members))
        members = {name: self.type(member) for name, member in definition.members.items()}
        match definition.kind:
            case "record":
                return Record(members)
            case "variant":
                return Variant(members)
            case _:
                return members[""]
