//! A model's chat template, and how it is applied.

use super::fields::{ArgumentsForm, Form, MESSAGE_FIELDS, own_fields};
use super::jinja::{Program, STEPS_MAX};
use super::markers::{Author, ControlFinder, Marking, UsedMarkers};
use super::support::TemplateSupport;
use super::{ChatOptions, Json, Message, Rendered, builtin, fallback};
use crate::tokenizer::Tokenizer;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Bytes that the source of a template may have.
pub const TEMPLATE_BYTES_MAX: usize = 256 << 10;

/// Bytes that the role of a message may have.
pub const ROLE_BYTES_MAX: usize = 64;

/// Texts of the special tokens of a vocabulary, as far as a template depends on them.
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
    /// Texts that the template reads as variables: `bos_token`, `eos_token`, `pad_token` and so on.
    pub variables: BTreeMap<String, String>,
    /// The texts that encoding with
    /// [`EncodeOptions::parse_special`](crate::tokenizer::EncodeOptions::parse_special) makes control tokens
    /// of, each of at least two characters. Where they occur in a message they stay plain text.
    pub control: Vec<String>,
    /// The texts of user-defined tokens, which are recognised in any text. Those that mark reasoning or tool
    /// calls for a template stay plain text in what a user or a tool wrote.
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
    /// Face transformers; `bos_token` and `eos_token` are empty where there is no such token, the others
    /// undefined.
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
/// # Safety from injection
///
/// The template and the options' variables are trusted, as they come with the model and from the host;
/// messages and tools are not. Places in what they hold of the text of control tokens are listed in
/// [`Rendered::protected_offsets`], also where a part of it stands at the edge of a string and the text
/// beside it completes it. A template that changes strings (takes characters out, changes their case) so that
/// a control text first comes to be is beyond this.
///
/// A template that looks for the text of a control token within a message finds it, as in Hugging Face
/// transformers: with `in` and `==`, in lookups by key, and with the methods and filters of strings. The
/// rendered text is exactly theirs, but for templates that count the characters of a message that holds the
/// text of a control token, cut it at fixed places, or make it the key of a dict of their own.
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

/// Why a chat template could not be parsed or rendered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatTemplateError {
    /// The crate was built without the feature `chat-template`.
    #[error(
        "chat templates need the feature 'chat-template' of exsa-core, which this program was built without"
    )]
    Disabled,
    /// The model has no chat template and its vocabulary tells of none.
    #[error(
        "the model has no chat template, and no <|im_start|> in its vocabulary that would tell of ChatML"
    )]
    Missing,
    /// The source is longer than [`TEMPLATE_BYTES_MAX`].
    #[error("the chat template has {bytes} bytes, but at most {TEMPLATE_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The source is no valid template.
    #[error("the chat template cannot be parsed: {problem}")]
    Parse {
        /// The problem and its line.
        problem: String,
    },
    /// The role of a message is not one that could be meant.
    #[error(
        "message {index} has the role '{role}', but a role is 1 to {ROLE_BYTES_MAX} ASCII letters, digits, '_', \
         '-' or '.'"
    )]
    Role {
        /// Which message, from 0.
        index: usize,
        /// Its role, cut to what is allowed.
        role: String,
    },
    /// A message or an option has a field that is given otherwise.
    #[error("'{field}' cannot be given as a further field or variable")]
    Field {
        /// Its name.
        field: String,
    },
    /// A field, a tool or a variable has more than 64 arrays and objects within each other.
    #[error("'{name}' has more than 64 arrays and objects within each other")]
    Depth {
        /// The name of the field or variable, `tools` or `documents`.
        name: String,
    },
    /// Messages hold nearly all of the characters U+FDD0 to U+FDEF, some of which mark what users wrote.
    #[error("the messages hold more than 26 of the 32 noncharacters U+FDD0 to U+FDEF; six have to be free")]
    Noncharacters,
    /// No template has the name that was asked for.
    #[error("there is no chat template '{name}', but: {known}")]
    UnknownName {
        /// The name, cut to 64 characters.
        name: String,
        /// Names of the model's and the built-in templates.
        known: String,
    },
    /// The template does not render tools, and [`ToolFallback::Refuse`](super::ToolFallback::Refuse) is set.
    #[error("the chat template has no place for {lacking}, and no fallback is allowed")]
    Tools {
        /// Kind of what is not rendered.
        lacking: &'static str,
    },
    /// The last message cannot be continued ([`ChatOptions::continue_final_message`]).
    #[error("the last message cannot be continued: {problem}")]
    Continue {
        /// The problem.
        problem: &'static str,
    },
    /// A part of a message is a picture or a sound, and the template writes text alone.
    #[error(
        "message {index}: part {part} of the content is of the kind {kind}, but this model takes text alone"
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
    /// The template does more work than any conversation needs, as one does that never ends.
    #[error(
        "the chat template does not end within the limit of {steps_max} steps for this conversation, each an \
         instruction or 64 bytes of data"
    )]
    Endless {
        /// Steps allowed: instructions, and units of 64 bytes of data.
        steps_max: u64,
    },
    /// The text is longer than [`ChatOptions::output_bytes_max`].
    #[error("the rendered conversation is over the limit of {limit} bytes")]
    OutputTooLong {
        /// Bytes allowed.
        limit: usize,
    },
}

impl ChatTemplate {
    /// Parses the Jinja `source` of a template for a vocabulary with the control tokens `texts`.
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

    /// The template of a model: `template`, as
    /// [`ModelInfo::chat_template`](crate::model_info::ModelInfo::chat_template) has it. Without one, ChatML
    /// serves if the vocabulary has `<|im_start|>`; else nothing tells how the model was trained to chat, and
    /// the result is [`ChatTemplateError::Missing`].
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
    /// The template sees `messages`, `tools` and `documents` (none where there are none),
    /// `add_generation_prompt`, the texts of special tokens (`bos_token`) and the options' variables. Of a
    /// message it sees `role`, `content` as one text (none for null content), and where they are given
    /// `reasoning_content`, `tool_calls` in the shape of OpenAI's API, `tool_call_id`, `name` and further
    /// fields. Content and the arguments of tool calls are in the form that the template takes
    /// ([`supports`](Self::supports)): content of several parts is a list where lists are rendered, and
    /// arguments whose text is a JSON object are a mapping unless the template wants the text.
    ///
    /// # Errors
    ///
    /// [`ChatTemplateError`]; a picture or a sound is [`ChatTemplateError::Media`], since a template writes
    /// text alone.
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

    /// Features of the template, found on the first call by rendering some twenty small conversations.
    pub fn supports(&self) -> &TemplateSupport {
        self.support.get_or_init(|| TemplateSupport::of(self))
    }

    /// Renders a conversation whose messages are given in `form`.
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
            return Err(ChatTemplateError::Continue { problem: "the template changes its text" });
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

/// The last message, with a mark at its end where the text is cut.
struct Continued {
    /// Its text without white space at the ends.
    text: String,
}

impl Continued {
    /// Puts the mark at the end of the last message's content, or of its reasoning where there is no content.
    ///
    /// A space follows the mark, as in Hugging Face transformers: where the template has taken it away, it
    /// trims the text.
    fn mark(messages: &mut [Vec<(String, Json)>], marking: &Marking) -> Result<Self, ChatTemplateError> {
        let problem = |problem| Err(ChatTemplateError::Continue { problem });
        let Some(fields) = messages.last_mut() else { return problem("there is no message") };
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

    /// Cuts the rendered text, which still has its markers, at the last mark and takes out those before.
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

/// Marks of reasoning and tool calls that templates need not have in their source.
const MARKS: [&str; 6] =
    ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"];

/// Whether a user-defined token marks something for a template: it is in the source, as Hugging Face
/// transformers decides it, or well known. User-defined tokens without a sign, such as runs of spaces or
/// words, are text.
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

/// Variables that are made of the conversation and the options, beside those of special tokens.
const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];

fn check_depth(name: &str, value: &Json) -> Result<(), ChatTemplateError> {
    if value.is_shallow() { Ok(()) } else { Err(ChatTemplateError::Depth { name: name.to_owned() }) }
}

/// Templates build control tokens of roles (`'<|' + role + '|>'`), so that no marker can guard them.
fn check_role(index: usize, role: &str) -> Result<(), ChatTemplateError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=ROLE_BYTES_MAX).contains(&role.len()) && role.chars().all(allowed) {
        return Ok(());
    }
    Err(ChatTemplateError::Role { index, role: role.chars().take(ROLE_BYTES_MAX).collect() })
}
