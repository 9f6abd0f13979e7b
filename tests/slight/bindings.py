"""C bindings of wit-bindgen 0.2's interfaces, from their .wit files.

The layout of values is left to the C compiler: structures and unions as C has them are what the ABI asks for. So the
guests of the tests and the host under test agree only if both are right.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shimd.wit.syntax import Definition, Function, Interface, Ref

_C = {
    "bool": "bool", "char": "uint32_t", "float32": "float", "float64": "double",
    **{f"{sign}{size}": f"{'u' * (sign == 'u')}int{size}_t" for sign in "su" for size in (8, 16, 32, 64)},
}  # fmt: skip
_WIDE = ("s64", "u64")
_KEYWORDS = ("double", "float")

PRELUDE = """
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
typedef struct { char *ptr; size_t len; } string;
typedef struct {} unit;
__attribute__((export_name("canonical_abi_realloc")))
void *canonical_abi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    if (!size) return (void *)align;
    void *made = realloc(old_size ? old : NULL, size);
    if (!made) abort();
    return made;
}
__attribute__((export_name("canonical_abi_free")))
void canonical_abi_free(void *old, size_t size, size_t align) { if (size) free(old); }
"""


@dataclass(frozen=True)
class Export:
    """A function that the guest has: of an interface's type, under a name of its own."""

    function: str
    export: str

    @property
    def c_name(self) -> str:
        return identifier(self.export)


def identifier(name: str) -> str:
    return name.replace("-", "_").replace("::", "_") + ("_" if name in _KEYWORDS else "")


class Bindings:
    """Of one interface. What it defines is prefixed with its name."""

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._prefix = identifier(interface.name)
        self._written: dict[str, str] = {}

    def imports(self) -> str:
        """Types, functions to call, and ``…_drop`` for each resource."""
        functions = [self._import(function) for function in self._interface.functions]
        handles = [self._handle(resource) for resource in self._interface.resources]
        return "\n".join([*self._written.values(), *handles, *functions])

    def exports(self, exports: list[Export]) -> str:
        """Types, and wrappers around functions that the guest defines."""
        by_name = {function.name: function for function in self._interface.functions}
        functions = [self._export(by_name[export.function], export) for export in exports]
        return "\n".join([*self._written.values(), *functions])

    # Types

    def _type(self, ref: Ref) -> str:
        """The C type's name; its definition is written before that of who uses it."""
        if ref.name in _C:
            return _C[ref.name]
        if ref.name in ("string", "unit"):
            return ref.name
        if ref.name in self._interface.resources:
            return "uint32_t"
        name = "_".join([self._prefix, *_names(ref)])
        if name not in self._written:
            body = self._generic(ref) if ref.arguments else self._defined(self._interface.types[ref.name])
            self._written[name] = f"typedef {body} {name};"
        return name

    def _generic(self, ref: Ref) -> str:
        types = [self._type(argument) for argument in ref.arguments]
        match ref.name:
            case "list":
                return f"struct {{ {types[0]} *ptr; size_t len; }}"
            case "option":
                return f"struct {{ uint8_t some; {types[0]} value; }}"
            case "expected":
                return f"struct {{ uint8_t failed; union {{ {types[0]} ok; {types[1]} err; }}; }}"
            case _:
                return "struct { " + " ".join(f"{kind} f{index};" for index, kind in enumerate(types)) + " }"

    def _defined(self, definition: Definition) -> str:
        members = {identifier(name): self._type(ref) for name, ref in definition.members.items()}
        match definition.kind:
            case "type":
                return members[""]
            case "enum":
                return "uint8_t"
            case "record":
                return "struct { " + _fields(members) + " }"
            case _:
                return f"struct {{ uint8_t tag; union {{ {_fields(members)} }}; }}"

    # Functions

    def _import(self, function: Function) -> str:
        name = f"{self._prefix}_{identifier(function.symbol)}" + ("_" if function.name in self._interface.types else "")
        params = {identifier(param): ref for param, ref in function.params.items()}
        result = self._type(function.result)
        takes = ", ".join(f"{self._type(ref)} {param}" for param, ref in params.items()) or "void"
        flat = [piece for param, ref in params.items() for piece in self._flat(ref, param)]
        kinds, values = [kind for kind, _ in flat], [value for _, value in flat]
        attributes = f'import_module("{self._interface.name}"), import_name("{function.symbol}")'
        if len(self._flat(function.result, "")) > 1:
            declared = f"void {name}_raw({', '.join([*kinds, result + ' *'])});"
            body = f"{result} answer; {name}_raw({', '.join([*values, '&answer'])}); return answer;"
        else:
            declared = f"{result} {name}_raw({', '.join(kinds) or 'void'});"
            body = f"return {name}_raw({', '.join(values)});"
        return (
            f"__attribute__(({attributes})) extern {declared}\n"
            f"__attribute__((unused)) static {result} {name}({takes}) {{ {body} }}"
        )

    def _export(self, function: Function, export: Export) -> str:
        result = self._type(function.result)
        params = {identifier(param): ref for param, ref in function.params.items()}
        flat = [(kind, f"p{index}") for index, (kind, _value) in enumerate(self._all_flat(params))]
        numbers = iter(name for _kind, name in flat)
        types = ", ".join(f"{self._type(ref)} {param}" for param, ref in params.items()) or "void"
        filled = [line for param, ref in params.items() for line in self._filled(ref, param, numbers)]
        declared = "".join(f"{self._type(ref)} {param} = {{0}}; " for param, ref in params.items())
        return (
            f"static {result} {export.c_name}({types});\n"
            f'__attribute__((export_name("{export.export}"))) {result} *{export.c_name}_raw('
            f"{', '.join(f'{kind} {name}' for kind, name in flat) or 'void'}) {{\n"
            f"    static {result} answer; {declared}{' '.join(filled)}\n"
            f"    answer = {export.c_name}({', '.join(params)}); return &answer;\n}}"
        )

    def _all_flat(self, params: Mapping[str, Ref]) -> list[tuple[str, str]]:
        return [piece for param, ref in params.items() for piece in self._flat(ref, param)]

    def _flat(self, ref: Ref, value: str) -> list[tuple[str, str]]:
        """The numbers that a value is passed as: their types, and what they are in C."""
        definition = self._interface.types.get(ref.name)
        if ref.name in ("string", "list"):
            return [("int32_t", f"(int32_t){value}.ptr"), ("int32_t", f"(int32_t){value}.len")]
        if ref.name == "option":
            return [("int32_t", f"{value}.some"), *self._flat(ref.arguments[0], f"{value}.value")]
        if ref.name == "tuple":
            return [piece for index, one in enumerate(ref.arguments) for piece in self._flat(one, f"{value}.f{index}")]
        if ref.name == "expected":  # as a result only: how many there are is all that matters
            longest = max((self._flat(argument, value) for argument in ref.arguments), key=len)
            return [("int32_t", f"{value}.failed"), *longest]
        if definition is not None:
            return self._flat_defined(definition, value)
        if ref.name == "unit":
            return []
        return [("int64_t" if ref.name in _WIDE else "int32_t", value)]

    def _flat_defined(self, definition: Definition, value: str) -> list[tuple[str, str]]:
        members = definition.members
        match definition.kind:
            case "type":
                return self._flat(members[""], value)
            case "enum":
                return [("int32_t", value)]
            case "record":
                fields = ((name, ref) for name, ref in members.items())
                return [piece for name, ref in fields for piece in self._flat(ref, f"{value}.{identifier(name)}")]
            case _:
                longest = max((self._flat(ref, value) for ref in members.values()), key=len)
                return [("int32_t", f"{value}.tag"), *longest]

    def _filled(self, ref: Ref, value: str, numbers: Iterator[str]) -> list[str]:
        """Statements that make a value of the numbers that it is passed as."""
        definition = self._interface.types.get(ref.name)
        if ref.name in ("string", "list"):
            return [f"{value}.ptr = (void *){next(numbers)};", f"{value}.len = (size_t){next(numbers)};"]
        if ref.name == "option":
            return [f"{value}.some = {next(numbers)};", *self._filled(ref.arguments[0], f"{value}.value", numbers)]
        if definition is not None and definition.kind == "type":
            return self._filled(definition.members[""], value, numbers)
        if definition is not None and definition.kind == "record":
            fields = definition.members.items()
            return [line for name, one in fields for line in self._filled(one, f"{value}.{identifier(name)}", numbers)]
        return [f"{value} = {next(numbers)};"]

    def _handle(self, resource: str) -> str:
        name = f"{self._prefix}_{identifier(resource)}"
        return "\n".join(
            f'__attribute__((import_module("canonical_abi"), import_name("resource_{what}_{resource}"))) '
            f"extern {gives} {name}_{what}(uint32_t handle);"
            for what, gives in (("drop", "void"), ("clone", "uint32_t"))
        )


def _names(ref: Ref) -> list[str]:
    return [identifier(ref.name), *(name for argument in ref.arguments for name in _names(argument))]


def _fields(members: Mapping[str, str]) -> str:
    return " ".join(f"{kind} {name};" for name, kind in members.items())
