"""Language models for components: ``fermyon:spin/llm@2.0.0``, by a server that the operator names.

Its protocols are Spin's own (``/infer``, ``/embed``) and OpenAI's (``/v1/chat/completions``, ``/v1/embeddings``).
"""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar
from urllib.parse import urljoin

from shimd.apps.spin.backends import Models, ServiceError
from shimd.apps.spin.services import Services, shown
from shimd.component.results import Case, Err
from shimd.wasi.waiting import wait_for

#: What holds for a guest that does not say, as in Spin.
_PARAMETERS: Mapping[str, float] = {
    "max-tokens": 100,
    "repeat-penalty": 1.1,
    "repeat-penalty-last-n-token-count": 64,
    "temperature": 0.8,
    "top-k": 40,
    "top-p": 0.9,
}
#: Seconds: a model thinks for a while, and says nothing meanwhile.
_PATIENCE = 600.0

T = TypeVar("T")


class Llm:
    """The interface, for one component."""

    def __init__(self, services: Services, models: Models | None, granted: Collection[str]) -> None:
        """:param models: the server; ``None``: there is none"""
        self._services, self._models = services, models
        self._granted = granted

    def infer(self, model: str, prompt: str, params: Mapping[str, float] | None) -> dict[str, object]:
        server = self._server(model)
        return _asked(server.infer, model, prompt, params or _PARAMETERS)

    def generate_embeddings(self, model: str, text: list[str]) -> dict[str, object]:
        server = self._server(model)
        return _asked(server.embed, model, text)

    def _server(self, model: str) -> "_DefaultServer | _OpenAiServer":
        """:raises Err: the component may not use the model, or there is no server"""
        if model not in self._granted:
            raise Err(Case("invalid-input", f"the component may not use {model!r}: its ai_models does not name it"))
        if self._models is None:
            raise Err(Case("runtime-error", "no model is there: runtime-config.toml has no llm_compute"))
        kind = _OpenAiServer if self._models.open_ai else _DefaultServer
        return kind(self._services, self._models)


def _asked(question: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    try:
        return wait_for(question, *arguments)
    except ServiceError as error:
        raise Err(Case("runtime-error", str(error))) from None


class _Server:
    def __init__(self, services: Services, models: Models) -> None:
        self._services, self._models = services, models

    async def ask(self, path: str, question: object, read: Callable[[Any], T]) -> T:
        """Returns what ``read`` makes of an answer, whatever its status: the body says what went wrong.

        :raises ServiceError: it is none
        """
        headers = {"Authorization": f"bearer {self._models.token}", "Content-Type": "application/json"}
        body = json.dumps(question).encode()
        url = urljoin(self._models.url, path)
        status, text = await self._services.ask("POST", url, headers, body, patience=_PATIENCE)
        try:
            found = json.loads(text)
            if (said := _error(found)) is not None:
                raise ServiceError(said)
            return read(found)
        except (ValueError, TypeError, LookupError):
            raise ServiceError(f"{shown(url)} answers POST {path} with {status}, and with no such result") from None


class _DefaultServer(_Server):
    """Spin's own protocol."""

    async def infer(self, model: str, prompt: str, parameters: Mapping[str, float]) -> dict[str, object]:
        options = {_camel(name): value for name, value in parameters.items()}
        return await self.ask("/infer", {"model": model, "prompt": prompt, "options": options}, _inferred)

    async def embed(self, model: str, texts: list[str]) -> dict[str, object]:
        return await self.ask("/embed", {"model": model, "input": texts}, _embedded)


class _OpenAiServer(_Server):
    async def infer(self, model: str, prompt: str, parameters: Mapping[str, float]) -> dict[str, object]:
        question = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_completion_tokens": parameters["max-tokens"],
            "frequency_penalty": parameters["repeat-penalty"],
        }
        return await self.ask("/v1/chat/completions", question, _completed)

    async def embed(self, model: str, texts: list[str]) -> dict[str, object]:
        return await self.ask("/v1/embeddings", {"model": model, "input": texts}, _listed)


def _error(found: Any) -> str | None:
    """Returns what a server of OpenAI's protocol says is wrong."""
    error = found.get("error") if isinstance(found, dict) else None
    return str(error["message"]) if isinstance(error, dict) and "message" in error else None


def _inferred(found: Any) -> dict[str, object]:
    usage = found["usage"]
    return _result(found["text"], usage["promptTokenCount"], usage["generatedTokenCount"])


def _completed(found: Any) -> dict[str, object]:
    usage, choices = found["usage"], found["choices"]
    text = choices[0]["message"]["content"] if choices else ""
    return _result(text, usage["prompt_tokens"], usage["completion_tokens"])


def _result(text: Any, prompt: Any, generated: Any) -> dict[str, object]:
    if not isinstance(text, str):
        raise TypeError
    return {"text": text, "usage": {"prompt-token-count": _count(prompt), "generated-token-count": _count(generated)}}


def _embedded(found: Any) -> dict[str, object]:
    return _vectors(found["embeddings"], found["usage"]["promptTokenCount"])


def _listed(found: Any) -> dict[str, object]:
    return _vectors([one["embedding"] for one in found["data"]], found["usage"]["prompt_tokens"])


def _vectors(vectors: Any, prompt: Any) -> dict[str, object]:
    embeddings = [[_real(value) for value in vector] for vector in vectors]
    return {"embeddings": embeddings, "usage": {"prompt-token-count": _count(prompt)}}


def _real(value: Any) -> float:
    if not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise ValueError
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(part.capitalize() for part in rest)
