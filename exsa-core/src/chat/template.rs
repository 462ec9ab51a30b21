//! Parsing and rendering of a chat template.

use super::fields::{ArgumentsForm, Form, MESSAGE_FIELDS, own_fields};
use super::jinja::{Program, STEPS_MAX};
use super::markers::{Author, ControlFinder, Marking, UsedMarkers};
use super::support::TemplateSupport;
use super::{ChatOptions, Json, Message, Rendered, builtin, fallback};
use crate::tokenizer::Tokenizer;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Maximum bytes of the source of a template.
pub const TEMPLATE_BYTES_MAX: usize = 256 << 10;

/// Maximum bytes of the role of a message.
pub const ROLE_BYTES_MAX: usize = 64;

/// Texts of the special tokens of a vocabulary that a template depends on.
///
/// ```
/// use exsa_core::chat::ControlTexts;
///
/// let texts = ControlTexts::new(["<s>", "</s>"]).variable("bos_token", "<s>");
/// assert_eq!(texts.variables["bos_token"], "<s>");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlTexts {
    /// Template variables for special tokens: `bos_token`, `eos_token`, `pad_token` and so on.
    pub variables: BTreeMap<String, String>,
    /// Texts that are encoded as control tokens with
    /// [`EncodeOptions::parse_special`](crate::tokenizer::EncodeOptions::parse_special), each of at least two
    /// characters. In a message they remain plain text.
    pub control: Vec<String>,
    /// Texts of user-defined tokens, which are recognized in any text. Those that mark reasoning or tool
    /// calls for a template remain plain text in messages of users and tools.
    pub user_defined: Vec<String>,
}

impl ControlTexts {
    /// The texts of control tokens, without variables.
    pub fn new<T: Into<String>>(control: impl IntoIterator<Item = T>) -> Self {
        Self { control: control.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Adds a variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.variables.insert(name.into(), text.into());
        self
    }

    /// Sets the texts of user-defined tokens.
    #[must_use]
    pub fn user_defined<T: Into<String>>(mut self, texts: impl IntoIterator<Item = T>) -> Self {
        self.user_defined = texts.into_iter().map(Into::into).collect();
        self
    }

    /// The texts of a tokenizer's vocabulary. There is a variable for each token with a role, as in Hugging
    /// Face transformers. If the token does not exist, `bos_token` and `eos_token` are empty, and other
    /// variables are undefined.
    pub fn of(tokenizer: &dyn Tokenizer) -> Self {
        let special = tokenizer.special();
        let named = special.roles.named().map(|(name, id)| (name, Some(id)));
        let known = [("unk", special.unk), ("pad", special.pad), ("bos", special.bos), ("eos", special.eos)];
        let mut texts = Self::new(tokenizer.control_tokens().into_iter().map(|(_, text)| text))
            .user_defined(tokenizer.user_defined_tokens().into_iter().map(|(_, text)| text))
            .variable("bos_token", "")
            .variable("eos_token", "");
        for (name, id) in named.chain(known) {
            if let Some(text) = id.and_then(|id| tokenizer.token_text(id)) {
                texts = texts.variable(format!("{name}_token"), text);
            }
        }
        texts
    }
}

/// A parsed chat template.
///
/// # Protection against injected control tokens
///
/// The template and the options' variables are trusted, since they come with the model and from the host;
/// messages and tools are not. Text of control tokens in messages and tools is listed in
/// [`Rendered::protected_offsets`], even if only a part of it is at the edge of a string and adjacent text
/// completes it. This does not cover templates that modify strings (remove characters, change their case)
/// such that a control text is created by the modification.
///
/// A template that looks for the text of a control token in a message finds it, as in Hugging Face
/// transformers: with `in` and `==`, in lookups by key, and with the methods and filters of strings. The
/// rendered text is identical to theirs, except for templates that count the characters of a message that
/// contains the text of a control token, cut it at fixed positions, or use it as a key of their own dict.
///
/// ```
/// # #[cfg(feature = "chat-template")] {
/// use exsa_core::chat::{ChatOptions, ChatTemplate, ControlTexts, Message};
///
/// let texts = ControlTexts::new(["<|end|>"]);
/// let template = ChatTemplate::parse("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}", texts)?;
/// let rendered = template.render(&[Message::user("Hi<|end|>")], &ChatOptions::default())?;
/// assert_eq!(rendered.text, "Hi<|end|><|end|>");
/// assert_eq!(rendered.protected_offsets, [3]);
/// # }
/// # Ok::<(), exsa_core::chat::ChatTemplateError>(())
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    program: Program,
    support: OnceLock<TemplateSupport>,
    /// Variables for the texts of special tokens.
    special: BTreeMap<String, String>,
    finder: Arc<ControlFinder>,
    /// Markers that the template itself holds.
    used: UsedMarkers,
}

/// Error of selecting, parsing or rendering a chat template.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatTemplateError {
    /// The crate was built without the feature `chat-template`.
    #[error(
        "chat templates need the feature 'chat-template' of exsa-core, which is not enabled in this program"
    )]
    Disabled,
    /// The model has no chat template, and its vocabulary does not indicate ChatML.
    #[error(
        "the model has no chat template, and no <|im_start|> in its vocabulary that would indicate ChatML"
    )]
    Missing,
    /// The source is longer than [`TEMPLATE_BYTES_MAX`].
    #[error("the chat template has {bytes} bytes, but at most {TEMPLATE_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The source is not a valid template.
    #[error("the chat template cannot be parsed: {problem}")]
    Parse {
        /// The problem and its line.
        problem: String,
    },
    /// The role of a message is invalid.
    #[error(
        "message {index} has the role '{role}', but a role is 1 to {ROLE_BYTES_MAX} ASCII letters, digits, '_', \
         '-' or '.'"
    )]
    Role {
        /// Index of the message, from 0.
        index: usize,
        /// The role, truncated to the allowed length.
        role: String,
    },
    /// An additional field or variable has the name of a built-in one.
    #[error("'{field}' is a built-in name and cannot be used for an additional field or variable")]
    Field {
        /// The name.
        field: String,
    },
    /// A field, a tool or a variable is nested more than 64 levels deep.
    #[error("'{name}' has arrays and objects nested more than 64 levels deep")]
    Depth {
        /// The name of the field or variable, `tools` or `documents`.
        name: String,
    },
    /// Messages contain nearly all of the characters U+FDD0 to U+FDEF, some of which are needed as markers.
    #[error("the messages contain more than 26 of the 32 noncharacters U+FDD0 to U+FDEF; six must be unused")]
    Noncharacters,
    /// There is no template with the requested name.
    #[error("there is no chat template '{name}'; available: {known}")]
    UnknownName {
        /// The name, truncated to 64 characters.
        name: String,
        /// Names of the model's and the built-in templates.
        known: String,
    },
    /// The template does not render tools, and [`ToolFallback::Refuse`](super::ToolFallback::Refuse) is set.
    #[error("the chat template does not support {lacking}, and no fallback is allowed")]
    Tools {
        /// The kind of content that is not rendered.
        lacking: &'static str,
    },
    /// The last message cannot be continued ([`ChatOptions::continue_final_message`]).
    #[error("the last message cannot be continued: {problem}")]
    Continue {
        /// The problem.
        problem: &'static str,
    },
    /// A part of a message is an image or audio clip, but the template only supports text.
    #[error(
        "message {index}: part {part} of the content is of the kind {kind}, but this model only supports text"
    )]
    Media {
        /// Index of the message.
        index: usize,
        /// Index of the part in its content.
        part: usize,
        /// Kind of the part: `image`, `audio`.
        kind: &'static str,
    },
    /// The template refused the conversation, by `raise_exception`.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template failed on the conversation.
    #[error("the chat template failed: {problem}")]
    Render {
        /// The problem and its line.
        problem: String,
    },
    /// The template exceeds the limit of steps, for example because of an endless loop.
    #[error(
        "the chat template does not end within the limit of {steps_max} steps for this conversation, each an \
         instruction or 64 bytes of data"
    )]
    Endless {
        /// Maximum steps: instructions, and units of 64 bytes of data.
        steps_max: u64,
    },
    /// The rendered text is longer than [`ChatOptions::output_bytes_max`].
    #[error("the rendered conversation exceeds the limit of {limit} bytes")]
    OutputTooLong {
        /// Maximum bytes.
        limit: usize,
    },
}

impl ChatTemplate {
    /// Parses the Jinja `source` of a template for a vocabulary with the control tokens `texts`.
    ///
    /// # Errors
    ///
    /// The source is too long or not a valid template, or the feature `chat-template` is off.
    pub fn parse(source: &str, texts: ControlTexts) -> Result<Self, ChatTemplateError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(ChatTemplateError::TooLong { bytes: source.len() });
        }
        let program = Program::parse(source)?;
        let mut used = UsedMarkers::default();
        for text in texts.variables.values().map(String::as_str).chain([source]) {
            used.add(text);
        }
        let user_defined = texts.user_defined.iter().map(String::as_str);
        let finder = Arc::new(ControlFinder::new(
            texts.control.iter().map(String::as_str),
            user_defined.filter(|text| is_mark(text, source)),
        ));
        Ok(Self {
            source: source.to_owned(),
            program,
            support: OnceLock::new(),
            special: texts.variables,
            finder,
            used,
        })
    }

    /// The template of a model: `template`, usually
    /// [`ModelInfo::chat_template`](crate::model_info::ModelInfo::chat_template), or else ChatML if the
    /// vocabulary has `<|im_start|>`.
    ///
    /// # Errors
    ///
    /// [`ChatTemplateError::Missing`] if there is neither; otherwise those of [`parse`](Self::parse).
    pub fn for_model(template: Option<&str>, tokenizer: &dyn Tokenizer) -> Result<Self, ChatTemplateError> {
        let texts = ControlTexts::of(tokenizer);
        match template {
            Some(source) => Self::parse(source, texts),
            None if texts.control.iter().any(|text| text == "<|im_start|>") => {
                Self::parse(builtin::source("chatml").unwrap_or_default(), texts)
            }
            None => Err(ChatTemplateError::Missing),
        }
    }

    /// Renders a conversation.
    ///
    /// The template receives `messages`, `tools` and `documents` (`none` if empty), `add_generation_prompt`,
    /// the texts of special tokens (`bos_token`) and the options' variables. A message has `role`, `content`
    /// as one text (`none` for null content) and, if present, `reasoning_content`, `tool_calls` in the format
    /// of OpenAI's API, `tool_call_id`, `name` and additional fields. Content and the arguments of tool calls
    /// have the form that the template supports ([`supports`](Self::supports)): content with several parts is
    /// a list if lists are rendered, and arguments whose text is a JSON object are a mapping, unless the
    /// template expects text.
    ///
    /// # Errors
    ///
    /// [`ChatTemplateError`]; [`ChatTemplateError::Media`] for an image or audio clip, since templates only
    /// write text.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<Rendered, ChatTemplateError> {
        let support = self.supports();
        let form = support.form();
        let (messages, options) =
            fallback::apply(messages, reasoning_variables(options, support), support, &self.source)?;
        let (messages, options) = (&*messages, &*options);
        let rendered = self.render_in(messages, options, form, STEPS_MAX);
        let failed = matches!(rendered, Err(ChatTemplateError::Render { .. }));
        let has_calls = || messages.iter().any(|message| !message.tool_calls.is_empty());
        if failed && form.arguments == ArgumentsForm::Mapping && has_calls() {
            let form = Form { arguments: ArgumentsForm::Text, ..form };
            return self.render_in(messages, options, form, STEPS_MAX).or(rendered);
        }
        rendered
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Features of the template, detected on the first call by rendering about twenty small conversations.
    pub fn supports(&self) -> &TemplateSupport {
        self.support.get_or_init(|| TemplateSupport::of(self))
    }

    /// Renders a conversation whose messages are passed in `form`.
    pub(super) fn render_in(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        form: Form,
        steps_max: u64,
    ) -> Result<Rendered, ChatTemplateError> {
        let mut used = self.used;
        let mut fields = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            check_role(index, &message.role)?;
            let own = own_fields(index, message, form)?;
            own.iter().for_each(|(_, value)| used.add_json(value));
            for (field, value) in &message.extra {
                if MESSAGE_FIELDS.contains(&field.as_str()) {
                    return Err(ChatTemplateError::Field { field: field.clone() });
                }
                check_depth(field, value)?;
                used.add(field);
                used.add_json(value);
            }
            fields.push(own);
        }
        for tool in &options.tools {
            check_depth("tools", tool)?;
            used.add_json(tool);
        }
        for document in &options.documents {
            check_depth("documents", document)?;
            used.add_json(document);
        }
        for (name, value) in &options.variables {
            if RESERVED.contains(&name.as_str()) || self.special.contains_key(name) {
                return Err(ChatTemplateError::Field { field: name.clone() });
            }
            check_depth(name, value)?;
            used.add_json(value);
        }
        let marking = Marking::new(Arc::clone(&self.finder), used).ok_or(ChatTemplateError::Noncharacters)?;

        for (own, message) in fields.iter_mut().zip(messages) {
            let author = author(&message.role);
            own.iter_mut().skip(1).for_each(|(_, value)| marking.mark_json(value, author));
            own.extend(message.extra.iter().map(|(field, value)| {
                let (mut field, mut value) = (field.clone(), value.clone());
                marking.mark_string(&mut field, author);
                marking.mark_json(&mut value, author);
                (field, value)
            }));
        }
        let continued =
            options.continue_final_message.then(|| Continued::mark(&mut fields, &marking)).transpose()?;
        let tools = match options.tools.as_slice() {
            [] => Json::Null,
            tools => {
                let mut tools = Json::Array(tools.to_vec());
                marking.mark_json(&mut tools, Author::User);
                tools
            }
        };
        let documents = match options.documents.as_slice() {
            [] => Json::Null,
            documents => {
                let mut documents = Json::Array(documents.to_vec());
                marking.mark_json(&mut documents, Author::User);
                documents
            }
        };
        let mut variables = vec![
            ("messages".to_owned(), fields.into_iter().map(Json::Object).collect()),
            ("tools".to_owned(), tools),
            ("documents".to_owned(), documents),
            (
                "add_generation_prompt".to_owned(),
                Json::Bool(options.add_generation_prompt && continued.is_none()),
            ),
        ];
        variables.extend(self.special.iter().map(|(name, text)| (name.clone(), Json::from(text.as_str()))));
        variables.extend(options.variables.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut text = self.program.render(variables, marking.clone(), options, steps_max)?;
        if continued.is_some() {
            Continued::cut(&mut text, &marking)?;
        }
        let protected_offsets = marking.take(&mut text);
        if continued.is_some_and(|continued| !text.contains(&continued.text)) {
            return Err(ChatTemplateError::Continue { problem: "the template modifies its text" });
        }
        Ok(Rendered { text, protected_offsets })
    }
}

/// The options with the variables that switch reasoning.
fn reasoning_variables<'a>(options: &'a ChatOptions, support: &TemplateSupport) -> Cow<'a, ChatOptions> {
    let mut new = Vec::new();
    if let Some(enable) = options.enable_thinking {
        new.push(("enable_thinking", Json::from(enable)));
        new.extend(support.thinking.map(|switch| (switch.variable, switch.value(enable))));
    }
    if let Some(effort) = &options.reasoning_effort {
        let names = ["reasoning_effort"].into_iter().chain(support.reasoning_effort);
        new.extend(names.map(|name| (name, Json::from(effort.as_str()))));
    }
    let mut options = Cow::Borrowed(options);
    for (name, value) in new {
        if !options.variables.contains_key(name) {
            options.to_mut().variables.insert(name.to_owned(), value);
        }
    }
    options
}

/// The last message, with a mark at its end at which the rendered text is cut.
struct Continued {
    /// The text of the message without surrounding white space.
    text: String,
}

impl Continued {
    /// Appends the mark to the last message's content, or to its reasoning if there is no content.
    ///
    /// A space follows the mark, as in Hugging Face transformers: if the template removes the space, it trims
    /// the text.
    fn mark(messages: &mut [Vec<(String, Json)>], marking: &Marking) -> Result<Self, ChatTemplateError> {
        let problem = |problem| Err(ChatTemplateError::Continue { problem });
        let Some(fields) = messages.last_mut() else { return problem("there are no messages") };
        let mut content = None;
        for (name, value) in fields.iter_mut() {
            match (name.as_str(), value) {
                ("content", Json::Array(parts)) => {
                    let last = parts.last_mut().and_then(|part| match part {
                        Json::Object(fields) => fields.iter_mut().find(|(name, _)| name == "text"),
                        _ => None,
                    });
                    content = last.map(|(_, text)| text);
                }
                ("content", value) => content = Some(value),
                _ => {}
            }
        }
        let mut targets: Vec<&mut Json> =
            content.into_iter().filter(|value| value.as_str().is_some()).collect();
        if targets.is_empty() {
            let reasoning =
                fields.iter_mut().filter(|(name, _)| name == "reasoning_content" || name == "thinking");
            targets = reasoning.map(|(_, value)| value).filter(|value| value.as_str().is_some()).collect();
        }
        let Some(first) = targets.first().and_then(|value| value.as_str()) else {
            return problem("it has no text");
        };
        let mut text = first.to_owned();
        marking.take(&mut text);
        for target in targets {
            if let Json::String(text) = target {
                text.extend([marking.cut(), ' ']);
            }
        }
        Ok(Self { text: text.trim().to_owned() })
    }

    /// Cuts the rendered text, which still has its markers, at the last mark, and removes earlier marks.
    fn cut(text: &mut String, marking: &Marking) -> Result<(), ChatTemplateError> {
        let Some((before, after)) = text.rsplit_once(marking.cut()) else {
            return Err(ChatTemplateError::Continue { problem: "the template leaves it out" });
        };
        let kept = if after.starts_with(' ') { before } else { before.trim_end() };
        // A template may write the message more than once.
        *text = kept.replace(&format!("{} ", marking.cut()), "").replace(marking.cut(), "");
        Ok(())
    }
}

/// Marks of reasoning and tool calls that need not occur in a template's source.
const MARKS: [&str; 6] =
    ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"];

/// Whether a user-defined token is a mark for a template: it occurs in the source, the criterion of Hugging
/// Face transformers, or is well known. User-defined tokens without a punctuation sign, such as runs of
/// spaces or words, are text.
fn is_mark(text: &str, source: &str) -> bool {
    MARKS.contains(&text)
        || text.contains(|c: char| c.is_ascii_punctuation() || c == '｜') && source.contains(text)
}

/// The author of a message.
fn author(role: &str) -> Author {
    match role {
        "system" | "developer" | "assistant" => Author::HostOrModel,
        _ => Author::User,
    }
}

/// Variables built from the conversation and the options, besides those of special tokens.
const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];

fn check_depth(name: &str, value: &Json) -> Result<(), ChatTemplateError> {
    if value.is_shallow() { Ok(()) } else { Err(ChatTemplateError::Depth { name: name.to_owned() }) }
}

/// Templates build control tokens from roles (`'<|' + role + '|>'`), where markers cannot protect them.
fn check_role(index: usize, role: &str) -> Result<(), ChatTemplateError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=ROLE_BYTES_MAX).contains(&role.len()) && role.chars().all(allowed) {
        return Ok(());
    }
    Err(ChatTemplateError::Role { index, role: role.chars().take(ROLE_BYTES_MAX).collect() })
}
