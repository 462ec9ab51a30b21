//! An engine.

use crate::answer::Answer;
use crate::error::{adapter, exception};
use exsa::core::backend::Pooling;
use exsa::{EngineBuilder, KvType, Mode, ModelSource, Request};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A model's source: a path, or a GGUF in memory.
#[derive(FromPyObject)]
enum Source {
    Bytes(Vec<u8>),
    Path(PathBuf),
}

/// A loaded model, wrapped by a class of the package.
#[pyclass(frozen, module = "exsa._exsa")]
pub struct Engine {
    /// `None` once it is closed.
    engine: Mutex<Option<exsa::Engine>>,
}

impl Engine {
    fn engine(&self) -> PyResult<exsa::Engine> {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.clone().ok_or_else(|| PyValueError::new_err("the engine is closed"))
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (
        source, *, backend=None, device=None, threads=None, context_tokens=None, sequences=None,
        batch_tokens=None, queue=None, kv_bytes=None, kv_type=None, memory_max=None, mode=None, draft_model=None, pooling=None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "arguments by name in Python")]
    fn new(
        py: Python<'_>,
        source: Source,
        backend: Option<&str>,
        device: Option<String>,
        threads: Option<usize>,
        context_tokens: Option<usize>,
        sequences: Option<usize>,
        batch_tokens: Option<usize>,
        queue: Option<usize>,
        kv_bytes: Option<u64>,
        kv_type: Option<&str>,
        memory_max: Option<u64>,
        mode: Option<&str>,
        draft_model: Option<PathBuf>,
        pooling: Option<&str>,
    ) -> PyResult<Self> {
        let kv_type = kv_type.map(|name| named("kv_type", name, &KV_TYPES)).transpose()?;
        let pooling = pooling.map(|name| named("pooling", name, &POOLINGS)).transpose()?;
        let mut builder = with_backend(backend)?.options(|mut options| {
            options.session = options.session.pooling(pooling);
            if let Some(tokens) = batch_tokens {
                options.session = options.session.batch_tokens(tokens);
            }
            match queue {
                Some(requests) => options.queue_max(requests),
                None => options,
            }
        });
        if let Some(mode) = mode {
            builder = builder.mode(named("mode", mode, &MODES)?);
        }
        builder = set(builder, device, EngineBuilder::device);
        builder = set(builder, threads, EngineBuilder::threads);
        builder = set(builder, context_tokens, EngineBuilder::context_tokens);
        builder = set(builder, sequences, EngineBuilder::sequences);
        builder = set(builder, kv_bytes, EngineBuilder::kv_bytes);
        builder = set(builder, kv_type, EngineBuilder::kv_type);
        builder = set(builder, memory_max, EngineBuilder::memory_max);
        builder = set(builder, draft_model, EngineBuilder::draft_model);
        let source: ModelSource = match source {
            Source::Bytes(bytes) => bytes.into(),
            Source::Path(path) => path.into(),
        };
        let engine = py.detach(|| builder.load(source)).map_err(exception)?;
        Ok(Self { engine: Mutex::new(Some(engine)) })
    }

    /// Submits a request in the JSON form of OpenAI's API.
    fn submit(&self, py: Python<'_>, request: &str) -> PyResult<Answer> {
        let (engine, request) = (self.engine()?, parse(request)?);
        let stream = py.detach(|| engine.submit(request)).map_err(exception)?;
        Ok(Answer::new(stream, engine))
    }

    /// Counts the prompt tokens of a request in JSON.
    fn count_tokens(&self, py: Python<'_>, request: &str) -> PyResult<usize> {
        let (engine, request) = (self.engine()?, parse(request)?);
        py.detach(|| engine.count_tokens(&request)).map_err(exception)
    }

    /// Embeds texts.
    fn embed(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Vec<Vec<f32>>> {
        let engine = self.engine()?;
        py.detach(|| engine.embed_texts(texts)).map_err(exception)
    }

    /// Encodes a text as token ids, without BOS and EOS.
    fn tokenize(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        let engine = self.engine()?;
        Ok(py.detach(|| engine.tokenize(text)))
    }

    /// Decodes token ids.
    fn detokenize(&self, py: Python<'_>, tokens: Vec<u32>) -> PyResult<String> {
        let engine = self.engine()?;
        Ok(py.detach(|| engine.detokenize(&tokens)))
    }

    /// Loads an adapter under a name.
    fn load_adapter(&self, py: Python<'_>, name: &str, path: PathBuf) -> PyResult<()> {
        let engine = self.engine()?;
        py.detach(|| engine.load_adapter(name, &path.into())).map_err(adapter)?;
        Ok(())
    }

    /// Unloads an adapter.
    fn unload_adapter(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let engine = self.engine()?;
        py.detach(|| engine.unload_adapter(name)).map_err(adapter)
    }

    /// Drops this handle of the engine, which ends with the last of its answers.
    fn close(&self, py: Python<'_>) {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(engine));
    }

    #[getter]
    fn model_name(&self) -> PyResult<String> {
        Ok(self.engine()?.model().name.clone())
    }

    #[getter]
    fn context_tokens(&self) -> PyResult<usize> {
        Ok(self.engine()?.info().capabilities.context_tokens_max)
    }

    #[getter]
    fn vocabulary_size(&self) -> PyResult<usize> {
        Ok(self.engine()?.model().n_vocab)
    }

    #[getter]
    fn embedding_width(&self) -> PyResult<usize> {
        Ok(self.engine()?.model().n_embd)
    }
}

const MODES: [(&str, Mode); 3] =
    [("latency", Mode::Latency), ("throughput", Mode::Throughput), ("balanced", Mode::Balanced)];

const POOLINGS: [(&str, Pooling); 3] =
    [("mean", Pooling::Mean), ("first", Pooling::First), ("last", Pooling::Last)];

const KV_TYPES: [(&str, KvType); 5] = [
    ("f32", KvType::F32),
    ("f16", KvType::F16),
    ("bf16", KvType::Bf16),
    ("q8_0", KvType::Q8_0),
    ("q4_0", KvType::Q4_0),
];

/// Creates a builder with the backend of this name.
fn with_backend(name: Option<&str>) -> PyResult<EngineBuilder> {
    let builder = EngineBuilder::default();
    match name {
        None | Some("candle") => Ok(builder),
        #[cfg(feature = "llamacpp")]
        Some("llamacpp") => Ok(builder.backend(exsa::llamacpp::LlamaCppBackend::new())),
        Some(name) => {
            let known = if cfg!(feature = "llamacpp") { "candle, llamacpp" } else { "candle" };
            Err(PyValueError::new_err(format!("unknown backend '{name}'; available: {known}")))
        }
    }
}

fn set<T>(
    builder: EngineBuilder,
    value: Option<T>,
    setter: impl FnOnce(EngineBuilder, T) -> EngineBuilder,
) -> EngineBuilder {
    match value {
        Some(value) => setter(builder, value),
        None => builder,
    }
}

/// Looks up a value by name.
fn named<T: Copy>(option: &str, name: &str, values: &[(&str, T)]) -> PyResult<T> {
    let found = values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|(known, _)| *known).collect();
        PyValueError::new_err(format!("unknown {option} '{name}'; available: {}", names.join(", ")))
    })
}

fn parse(request: &str) -> PyResult<Request> {
    serde_json::from_str(request).map_err(|error| PyValueError::new_err(format!("request: {error}")))
}
