//! Options of the services.

/// Default maximum bytes of a message.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Options of the services.
///
/// ```
/// let options = exsa_grpc::GrpcOptions::new().model("chat".to_owned());
/// assert_eq!(options.model.as_deref(), Some("chat"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GrpcOptions {
    /// Name of the model that `GetModelInfo` reports and that requests without a model name use; `None`, the
    /// default, is the generator's default model.
    pub model: Option<String>,
    /// `model_id` of `GetModelInfo`, which requests may also name: for Dynamo, a folder with the tokenizer in
    /// Hugging Face's format. By default the model's name.
    pub model_id: Option<String>,
    /// Maximum bytes of a message; 16 MiB by default. This much memory may be reserved as soon as a client
    /// announces such a message.
    pub message_bytes_max: usize,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self { model: None, model_id: None, message_bytes_max: MESSAGE_BYTES_MAX }
    }
}

impl GrpcOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name of the model.
    #[must_use]
    pub fn model(mut self, name: impl Into<Option<String>>) -> Self {
        self.model = name.into();
        self
    }

    /// Sets the `model_id`.
    #[must_use]
    pub fn model_id(mut self, id: impl Into<Option<String>>) -> Self {
        self.model_id = id.into();
        self
    }

    /// Sets the maximum bytes of a message.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Returns the model that a request names, unless it is the default one.
    pub(crate) fn named<'a>(&'a self, asked: &'a str) -> Option<&'a str> {
        if asked.is_empty() || self.model_id.as_deref() == Some(asked) {
            return self.model.as_deref();
        }
        Some(asked)
    }
}
