"""Classes of the package, on top of the native module."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any, AsyncIterator, Dict, Iterator, List, Mapping, Optional, Sequence, Type, Union

from . import _exsa

#: A message of a conversation: "role", "content" and what OpenAI's API allows beside them.
Message = Mapping[str, Any]


@dataclass(frozen=True)
class Usage:
    """Token counts and times of a request."""

    #: Prompt tokens, including BOS.
    prompt_tokens: int
    #: Prompt tokens whose KV was cached.
    cached_tokens: int
    #: Generated tokens, including the one that ended the answer.
    completion_tokens: int
    #: Seconds from submission to the first token; None if there was none.
    time_to_first_token: Optional[float]
    #: Seconds from submission to the end.
    total_time: float


@dataclass(frozen=True)
class Completion:
    """A complete answer."""

    text: str
    #: "stop", "length", "tool_calls", "content_filter", "cancelled" or "timeout".
    finish_reason: str
    usage: Usage
    #: The seed of the answer.
    seed: Optional[int]


class Answer:
    """The answer to one request: an iterator and an async iterator of pieces of text.

    Dropping it cancels the request. One thread or task at a time may read it; any may cancel it.
    """

    def __init__(self, native: _exsa.Answer) -> None:
        self._native = native

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self._native.next()
        if not piece:
            raise StopIteration
        return piece

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        loop = asyncio.get_running_loop()
        while True:
            ready: asyncio.Future[None] = loop.create_future()
            piece = self._native.poll(lambda: loop.call_soon_threadsafe(_wake, ready))
            if piece is None:
                await ready
            elif piece:
                return piece
            else:
                raise StopAsyncIteration

    def next_piece(self, timeout: Optional[float] = None) -> Optional[str]:
        """Returns the next piece of text; empty after the last, None if none arrived within `timeout` seconds."""
        return self._native.next(timeout)

    def events(self) -> Iterator[Dict[str, Any]]:
        """Returns all further events, with tokens, log-probabilities, reasoning and tool calls, instead of text."""
        while event := self._native.next_event():
            yield json.loads(event)

    def cancel(self) -> None:
        """Cancels the request; text generated before can still be read. Any thread."""
        self._native.cancel()

    def complete(self) -> Completion:
        """Blocks until the answer is complete."""
        return self._completion(list(self))

    async def complete_async(self) -> Completion:
        """Waits until the answer is complete, without blocking the event loop."""
        return self._completion([piece async for piece in self])

    @property
    def finish_reason(self) -> Optional[str]:
        """Finish reason; None before the end was read."""
        return self._native.finish_reason()

    @property
    def usage(self) -> Optional[Usage]:
        """Token counts and times; None before the end was read."""
        found = self._native.usage()
        return None if found is None else _usage(found[0])

    @property
    def seed(self) -> Optional[int]:
        """The seed of the answer; None before the end was read."""
        found = self._native.usage()
        return None if found is None else found[1]

    def _completion(self, pieces: List[str]) -> Completion:
        reason, found = self._native.finish_reason(), self._native.usage()
        if reason is None or found is None:
            raise _exsa.RequestError("the answer ended without a reason")
        return Completion("".join(pieces), reason, _usage(found[0]), found[1])


class Engine:
    """A loaded model and the thread that serves it. Any number of threads and tasks may use it.

    `model` is the path of a GGUF file, or its bytes. Options that are None keep their defaults, which are those of
    the crate `exsa`: `kv_type` is "f32", "f16", "bf16", "q8_0" or "q4_0"; `mode` "latency", "throughput" or
    "balanced"; `pooling` "mean", "first" or "last"; `queue` the maximum of waiting requests; `memory_max` refuses a
    model whose estimate exceeds it. Loading releases the interpreter.

    Raises `LoadError` if the model cannot be loaded, `ValueError` for an option that does not exist.
    """

    def __init__(
        self,
        model: Union[str, "os.PathLike[str]", bytes],
        *,
        backend: Optional[str] = None,
        device: Optional[str] = None,
        threads: Optional[int] = None,
        context_tokens: Optional[int] = None,
        sequences: Optional[int] = None,
        batch_tokens: Optional[int] = None,
        queue: Optional[int] = None,
        kv_bytes: Optional[int] = None,
        kv_type: Optional[str] = None,
        memory_max: Optional[int] = None,
        mode: Optional[str] = None,
        draft_model: Union[str, "os.PathLike[str]", None] = None,
        pooling: Optional[str] = None,
    ) -> None:
        self._native = _exsa.Engine(
            model if isinstance(model, bytes) else os.fspath(model),
            backend=backend,
            device=device,
            threads=threads,
            context_tokens=context_tokens,
            sequences=sequences,
            batch_tokens=batch_tokens,
            queue=queue,
            kv_bytes=kv_bytes,
            kv_type=kv_type,
            memory_max=memory_max,
            mode=mode,
            draft_model=None if draft_model is None else os.fspath(draft_model),
            pooling=pooling,
        )

    def submit(
        self,
        messages: Union[str, Sequence[Message], None] = None,
        *,
        prompt: Union[str, Sequence[int], None] = None,
        max_tokens: Optional[int] = None,
        temperature: Optional[float] = None,
        top_k: Optional[int] = None,
        top_p: Optional[float] = None,
        min_p: Optional[float] = None,
        repetition_penalty: Optional[float] = None,
        seed: Optional[int] = None,
        stop: Union[str, Sequence[str], None] = None,
        json_schema: Optional[Mapping[str, Any]] = None,
        adapters: Union[Sequence[str], Mapping[str, float], None] = None,
        timeout: Optional[float] = None,
        **fields: Any,
    ) -> Answer:
        """Submits a request and returns immediately.

        `messages` is a conversation, or the text of one message of the user; `prompt` is a text or token ids to
        continue without a chat template, in place of messages. Further `fields` are those of the request's JSON form
        ("tools", "logprobs", "priority", ...).

        Raises `RefusedError` (`QueueFullError` if too many wait) and `ValueError` for a field of a wrong type.
        """
        return Answer(self._native.submit(_request(**_arguments(locals()))))

    def complete(self, messages: Union[str, Sequence[Message], None] = None, **options: Any) -> Completion:
        """Submits a request, with the arguments of `submit`, and blocks until the answer is complete."""
        return self.submit(messages, **options).complete()

    async def complete_async(
        self, messages: Union[str, Sequence[Message], None] = None, **options: Any
    ) -> Completion:
        """Like `complete`, without blocking the event loop of asyncio."""
        return await self.submit(messages, **options).complete_async()

    def count_tokens(
        self,
        messages: Union[str, Sequence[Message], None] = None,
        *,
        prompt: Union[str, Sequence[int], None] = None,
        **fields: Any,
    ) -> int:
        """Counts the tokens of a prompt, with the chat template and BOS."""
        return self._native.count_tokens(_request(**_arguments(locals())))

    def embed(self, texts: Sequence[str]) -> List[List[float]]:
        """Embeds texts. A model without its own pooling type needs `Engine(..., pooling=...)`."""
        if isinstance(texts, str):
            raise TypeError("texts is a sequence of texts, not one text")
        return self._native.embed(list(texts))

    def tokenize(self, text: str) -> List[int]:
        """Encodes a text as token ids, without BOS and EOS. Control tokens in the text are encoded as plain text."""
        return self._native.tokenize(text)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Decodes token ids. Control tokens have no text; invalid UTF-8 becomes U+FFFD."""
        return self._native.detokenize(list(tokens))

    def load_adapter(self, name: str, path: Union[str, "os.PathLike[str]"]) -> None:
        """Loads a LoRA adapter (a GGUF file), which requests use by name. Raises `LoadError`."""
        self._native.load_adapter(name, os.fspath(path))

    def unload_adapter(self, name: str) -> None:
        """Unloads an adapter; running requests keep using it. Raises `LoadError` if it is not loaded."""
        self._native.unload_adapter(name)

    @property
    def model_name(self) -> str:
        """Name of the model, from its file."""
        return self._native.model_name

    @property
    def context_tokens(self) -> int:
        """Context length: maximum tokens of a sequence, prompt and answer together."""
        return self._native.context_tokens

    @property
    def vocabulary_size(self) -> int:
        """Vocabulary size."""
        return self._native.vocabulary_size

    @property
    def embedding_width(self) -> int:
        """Number of values of an embedding."""
        return self._native.embedding_width

    def close(self) -> None:
        """Frees the model once its answers have ended; further calls raise `ValueError`."""
        self._native.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Any, traceback: Any) -> None:
        self.close()


def _wake(ready: "asyncio.Future[None]") -> None:
    # The task that waited may have been cancelled.
    if not ready.done():
        ready.set_result(None)


def _usage(text: str) -> Usage:
    fields = json.loads(text)
    return Usage(
        prompt_tokens=fields["prompt_tokens"],
        cached_tokens=fields["cached_tokens"],
        completion_tokens=fields["completion_tokens"],
        time_to_first_token=fields.get("time_to_first_token"),
        total_time=fields["total_time"],
    )


def _arguments(given: Dict[str, Any]) -> Dict[str, Any]:
    """Merges the given arguments of a method with its extra keyword arguments."""
    own = {name: value for name, value in given.items() if name not in ("self", "fields")}
    return {name: value for name, value in {**given["fields"], **own}.items() if value is not None}


def _request(
    messages: Union[str, Sequence[Message], None] = None,
    prompt: Union[str, Sequence[int], None] = None,
    adapters: Union[Sequence[str], Mapping[str, float], None] = None,
    **fields: Any,
) -> str:
    """Serializes the request as JSON in the form of OpenAI's API."""
    if (messages is None) == (prompt is None):
        raise ValueError("a request has either messages or a prompt")
    if messages is not None:
        fields["messages"] = (
            [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
        )
    else:
        fields["prompt"] = prompt if isinstance(prompt, str) else list(prompt or ())
    if adapters is not None:
        if isinstance(adapters, str):
            raise TypeError("adapters is a sequence of names or a mapping of names to scales, not one name")
        scales = adapters if isinstance(adapters, Mapping) else {name: 1.0 for name in adapters}
        fields["lora"] = [{"name": name, "scale": scale} for name, scale in scales.items()]
    return json.dumps(fields, allow_nan=False)
