"""``.wit`` text as wit-bindgen 0.2 reads it: interfaces of functions, types and resources. Names only, no types yet."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_TOKEN = re.compile(r"\s+|//[^\n]*|/\*.*?\*/|(?P<token>->|[{}()<>:,=]|[A-Za-z][\w-]*|.)", re.DOTALL)


class SyntaxFault(ValueError):
    """The text is not an interface; the message has file and line."""


@dataclass(frozen=True)
class Ref:
    """A type where it is used: a name, and arguments: ``list<u8>``."""

    name: str
    arguments: tuple["Ref", ...] = ()


UNIT = Ref("unit")


@dataclass(frozen=True)
class Definition:
    """A type with a name."""

    kind: str
    """``record``, ``variant``, ``enum`` or ``type`` (another name, for its only member)."""
    members: Mapping[str, Ref]


@dataclass(frozen=True)
class Function:
    name: str
    params: Mapping[str, Ref]
    result: Ref
    resource: str | None = None
    static: bool = True

    @property
    def symbol(self) -> str:
        """The function's name in a module's imports: ``keyvalue::open``."""
        return f"{self.resource}::{self.name}" if self.resource else self.name


@dataclass
class Interface:
    name: str
    types: dict[str, Definition] = field(default_factory=dict)
    resources: list[str] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)


Load = Callable[[str], str]
"""A function that returns the text of an interface, by its name."""


def parse(name: str, load: Load) -> Interface:
    """Parse an interface.

    :raises SyntaxFault: its text, or that of one which it uses, is wrong
    """
    return _Parser(name, load).interface()


class _Parser:
    def __init__(self, name: str, load: Load) -> None:
        self._text = load(name)
        self._load = load
        found = [(match["token"], match.start()) for match in _TOKEN.finditer(self._text) if match["token"]]
        self._tokens = [*found, ("", len(self._text))]
        self._index = 0
        self._made = Interface(name)

    def interface(self) -> Interface:
        while self._peek():
            match self._name():
                case "use":
                    self._use()
                case "resource":
                    self._resource()
                case "record" | "variant" | "enum" as kind:
                    defined = self._name()
                    self._made.types[defined] = Definition(kind, self._members())
                case "type":
                    defined = self._name()
                    self._expect("=")
                    self._made.types[defined] = Definition("type", {"": self._ref()})
                case name:
                    self._made.functions.append(self._function(name, None, static=True))
        return self._made

    def _use(self) -> None:
        names = list(self._members())
        self._expect("from")
        source = parse(self._name(), self._load)
        for name in names:
            if name not in source.types:
                raise self._fault(f"{source.name} has no type {name}")
        self._made.types.update(source.types)  # those that they use, too

    def _resource(self) -> None:
        resource = self._name()
        self._made.resources.append(resource)
        self._expect("{")
        while not self._skip("}"):
            name = self._name()
            static = name == "static"
            self._made.functions.append(self._function(self._name() if static else name, resource, static=static))

    def _function(self, name: str, resource: str | None, *, static: bool) -> Function:
        self._expect(":")
        self._expect("func")
        params: dict[str, Ref] = {} if static or resource is None else {"self": Ref(resource)}
        self._expect("(")
        while not self._skip(")"):
            param = self._name()
            self._expect(":")
            params[param] = self._ref()
            self._skip(",")
        result = self._ref() if self._skip("->") else UNIT
        return Function(name, params, result, resource, static)

    def _members(self) -> dict[str, Ref]:
        """Parse ``{ a: T, b(T), c }``."""
        members: dict[str, Ref] = {}
        self._expect("{")
        while not self._skip("}"):
            name = self._name()
            members[name] = UNIT
            if self._skip(":"):
                members[name] = self._ref()
            elif self._skip("("):
                members[name] = self._ref()
                self._expect(")")
            self._skip(",")
        return members

    def _ref(self) -> Ref:
        name = self._name()
        arguments = []
        if self._skip("<"):
            while not self._skip(">"):
                arguments.append(self._ref())
                self._skip(",")
        return Ref(name, tuple(arguments))

    def _name(self) -> str:
        token = self._peek()
        if not token[:1].isalpha():
            raise self._fault(f"a name was expected, not {token!r}")
        self._index += 1
        return token

    def _expect(self, token: str) -> None:
        if not self._skip(token):
            raise self._fault(f"{token!r} was expected, not {self._peek()!r}")

    def _skip(self, token: str) -> bool:
        found = self._peek() == token
        self._index += found
        return found

    def _peek(self) -> str:
        return self._tokens[self._index][0]

    def _fault(self, text: str) -> SyntaxFault:
        line = self._text.count("\n", 0, self._tokens[self._index][1]) + 1
        return SyntaxFault(f"{self._made.name}.wit, line {line}: {text}")
