//! The chat templates of a model, and the selection of one.

use super::{ChatOptions, ChatTemplate, ChatTemplateError, ControlTexts, Message, Rendered, builtin};
use crate::model_info::ModelInfo;
use crate::tokenizer::Tokenizer;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Maximum parsed templates that are kept.
const PARSED_MAX: usize = 8;

/// Name of the template for requests with tools in model files.
const TOOL_USE: &str = "tool_use";

/// Name of the template for requests with documents in model files.
const RAG: &str = "rag";

/// Name of the main template.
const DEFAULT: &str = "default";

/// A chat template, by name or as text.
///
/// A template is trusted code: it decides which control tokens a prompt contains. It must never come from an
/// untrusted user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ChatTemplateSource {
    /// A named template of the model (`tool_use`, `rag`; `default` is the main template), or else a built-in
    /// template: `chatml`, `gemma`, `llama2`, `llama3`, `mistral`, `phi3`, `zephyr`.
    Name(String),
    /// The Jinja source, of at most [`TEMPLATE_BYTES_MAX`](super::TEMPLATE_BYTES_MAX) bytes.
    Text(String),
}

impl ChatTemplateSource {
    /// A template by name.
    pub fn name(name: impl Into<String>) -> Self {
        Self::Name(name.into())
    }

    /// A template as Jinja source.
    pub fn text(source: impl Into<String>) -> Self {
        Self::Text(source.into())
    }
}

/// The chat templates of a model.
///
/// ```
/// # #[cfg(feature = "chat-template")] {
/// use exsa_core::chat::{ChatOptions, ChatTemplateSource, ChatTemplates, Message};
/// use exsa_core::model_info::ModelInfo;
/// use exsa_core::scripted::ByteTokenizer;
/// use std::sync::Arc;
///
/// let templates = ChatTemplates::new(&ModelInfo::new(300, 512), Arc::new(ByteTokenizer::new()));
/// let options = ChatOptions::default().template(ChatTemplateSource::name("chatml"));
/// let prompt = templates.render(&[Message::user("Hi")], &options)?;
/// assert_eq!(prompt.text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
/// # }
/// # Ok::<(), exsa_core::chat::ChatTemplateError>(())
/// ```
pub struct ChatTemplates {
    tokenizer: Arc<dyn Tokenizer>,
    texts: OnceLock<ControlTexts>,
    /// The model's main template.
    main: Option<String>,
    /// Its other templates, by name.
    named: BTreeMap<String, String>,
    /// The host's replacement of the main template, if set.
    replaced: Option<ChatTemplateSource>,
    /// Parsed templates, most recently used last.
    parsed: Mutex<Vec<Arc<ChatTemplate>>>,
}

impl std::fmt::Debug for ChatTemplates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplates")
            .field("names", &self.names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl ChatTemplates {
    /// The templates of a model. Each template is parsed on first use.
    pub fn new(info: &ModelInfo, tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self {
            tokenizer,
            texts: OnceLock::new(),
            main: info.chat_template.clone(),
            named: info.chat_templates.clone(),
            replaced: None,
            parsed: Mutex::new(Vec::new()),
        }
    }

    /// Sets the template for requests that select none, in place of the model's.
    #[must_use]
    pub fn replace(mut self, source: Option<ChatTemplateSource>) -> Self {
        self.replaced = source;
        self
    }

    /// Names that [`ChatTemplateSource::Name`] may have: those of the model, then the built-in ones.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let main = self.main.iter().map(|_| -> &str { DEFAULT });
        main.chain(self.named.keys().map(String::as_str)).chain(builtin::names().map(|name| -> &str { name }))
    }

    /// Selects the template for a request. In order of preference: the template of the request's options; the
    /// engine's template; the model's `tool_use` template, if the request has tools; its `rag` template, if
    /// the request has documents; its main template; ChatML, if the vocabulary has `<|im_start|>`.
    ///
    /// # Errors
    ///
    /// [`ChatTemplateError::UnknownName`], [`ChatTemplateError::Missing`], or an error of parsing the
    /// template.
    pub fn select(&self, options: &ChatOptions) -> Result<Arc<ChatTemplate>, ChatTemplateError> {
        let texts = || self.texts.get_or_init(|| ControlTexts::of(&*self.tokenizer));
        let source = match options.template.as_ref().or(self.replaced.as_ref()) {
            Some(ChatTemplateSource::Text(source)) => source,
            Some(ChatTemplateSource::Name(name)) => {
                self.source(name).ok_or_else(|| ChatTemplateError::UnknownName {
                    name: name.chars().take(64).collect(),
                    known: self.names().collect::<Vec<_>>().join(", "),
                })?
            }
            None => {
                let tool_use = self.named.get(TOOL_USE).filter(|_| !options.tools.is_empty());
                let rag = self.named.get(RAG).filter(|_| !options.documents.is_empty());
                match tool_use.or(rag).or(self.main.as_ref()) {
                    Some(source) => source,
                    None if texts().control.iter().any(|text| text == "<|im_start|>") => {
                        builtin::source("chatml").unwrap_or_default()
                    }
                    None => return Err(ChatTemplateError::Missing),
                }
            }
        };
        let mut parsed = self.parsed.lock();
        if let Some(at) = parsed.iter().position(|template| template.source() == source) {
            let template = parsed.remove(at);
            parsed.push(Arc::clone(&template));
            return Ok(template);
        }
        let template = Arc::new(ChatTemplate::parse(source, texts().clone())?);
        if parsed.len() >= PARSED_MAX {
            parsed.remove(0);
        }
        parsed.push(Arc::clone(&template));
        Ok(template)
    }

    /// Renders a conversation with the template that [`select`](Self::select) returns.
    ///
    /// # Errors
    ///
    /// Those of [`select`](Self::select) and [`ChatTemplate::render`].
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<Rendered, ChatTemplateError> {
        self.select(options)?.render(messages, options)
    }

    fn source(&self, name: &str) -> Option<&str> {
        let main = self.main.as_deref().filter(|_| name == DEFAULT);
        main.or_else(|| self.named.get(name).map(String::as_str)).or_else(|| builtin::source(name))
    }
}
