"""Native module, wrapped by the classes of the package."""

import os
from typing import Callable, List, Optional, Sequence, Tuple, Union, final

VERSION: str

class Error(Exception):
    """Any failure of the engine."""

class LoadError(Error):
    """The model or the adapter could not be loaded."""

class RefusedError(Error):
    """The request exceeds the limits of the model."""

class QueueFullError(RefusedError):
    """The queue is full; try again later."""

class RequestError(Error):
    """The request failed after it was accepted."""

@final
class Answer:
    def next(self, timeout: Optional[float] = None) -> Optional[str]: ...
    def next_event(self, timeout: Optional[float] = None) -> Optional[str]: ...
    def poll(self, wake: Callable[[], object]) -> Optional[str]: ...
    def cancel(self) -> None: ...
    def finish_reason(self) -> Optional[str]: ...
    def usage(self) -> Optional[Tuple[str, Optional[int]]]: ...

@final
class Engine:
    def __new__(
        cls,
        source: Union[str, "os.PathLike[str]", bytes],
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
    ) -> "Engine": ...
    def submit(self, request: str) -> Answer: ...
    def count_tokens(self, request: str) -> int: ...
    def embed(self, texts: Sequence[str]) -> List[List[float]]: ...
    def tokenize(self, text: str) -> List[int]: ...
    def detokenize(self, tokens: Sequence[int]) -> str: ...
    def load_adapter(self, name: str, path: Union[str, "os.PathLike[str]"]) -> None: ...
    def unload_adapter(self, name: str) -> None: ...
    def close(self) -> None: ...
    @property
    def model_name(self) -> str: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def vocabulary_size(self) -> int: ...
    @property
    def embedding_width(self) -> int: ...
