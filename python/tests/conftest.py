"""The built-in model, loaded once."""

from pathlib import Path

import exsa
import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="session")
def model() -> Path:
    return MODELS / "exsa-tiny-q8_0.gguf"


@pytest.fixture(scope="session")
def adapter() -> Path:
    return MODELS / "exsa-lora-alice.gguf"


@pytest.fixture(scope="session")
def engine(model: Path):
    with exsa.Engine(model, threads=1, context_tokens=256, sequences=4, pooling="mean") as engine:
        yield engine
