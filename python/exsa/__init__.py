"""In-process LLM inference engine: load a GGUF model, stream tokens.

>>> engine = Engine("model.gguf")
>>> for piece in engine.submit("Tell me a story about a frog.", max_tokens=200):
...     print(piece, end="", flush=True)
"""

from ._engine import Answer, Completion, Engine, Message, Usage
from ._exsa import VERSION as __version__
from ._exsa import Error, LoadError, QueueFullError, RefusedError, RequestError

__all__ = [
    "Answer",
    "Completion",
    "Engine",
    "Error",
    "LoadError",
    "Message",
    "QueueFullError",
    "RefusedError",
    "RequestError",
    "Usage",
    "__version__",
]
