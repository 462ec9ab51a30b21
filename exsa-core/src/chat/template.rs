//! A model's chat template, and how it is applied.

use super::barriers::{ControlFinder, UsedMarkers, take_markers};
use super::jinja::Program;
use super::{ChatOptions, Json, Message, Rendered};
use crate::tokenizer::Tokenizer;

/// Bytes that the source of a template may have.
pub const TEMPLATE_BYTES_MAX: usize = 256 << 10;

/// Bytes that the role of a message may have.
pub const ROLE_BYTES_MAX: usize = 64;

/// What a template has to know of the vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlTexts {
    /// Text of the BOS token, the template's `bos_token`; empty if there is none.
    pub bos: String,
    /// Text of the EOS token, the template's `eos_token`; empty if there is none.
    pub eos: String,
    /// The texts that encoding with [`EncodeOptions::special`](crate::tokenizer::EncodeOptions::special) makes control
    /// tokens of, each of at least two characters. Where they occur in a message they stay plain text.
    pub control: Vec<String>,
}

impl ControlTexts {
    /// The texts of a tokenizer's vocabulary.
    pub fn of(tokenizer: &dyn Tokenizer) -> Self {
        let text = |id: Option<_>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default().to_owned();
        let special = tokenizer.special();
        let control = tokenizer.control_tokens().into_iter().map(|(_, text)| text).collect();
        Self { bos: text(special.bos), eos: text(special.eos), control }
    }
}

/// A parsed chat template.
///
/// # Safety from injection
///
/// The template and the options' variables are trusted, as they come with the model and from the host; messages and
/// tools are not. What they hold of the text of control tokens is listed in [`Rendered::barriers`], also where a
/// part of it stands at the edge of a string and the text beside it completes it. A template that changes
/// strings (takes characters out, changes their case) so that a control text first comes to be is beyond this.
///
/// A template that looks for the text of a control token within a message does not find it, as
/// it would in Hugging Face transformers. Rendered text without barriers is exactly theirs.
///
/// ```
/// # #[cfg(feature = "chat-template")] {
/// use exsa_core::chat::{ChatOptions, ChatTemplate, ControlTexts, Message};
///
/// let texts = ControlTexts { control: vec!["<|end|>".into()], ..Default::default() };
/// let template = ChatTemplate::parse("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}", texts)?;
/// let rendered = template.render(&[Message::user("Hi<|end|>")], &ChatOptions::default())?;
/// assert_eq!(rendered.text, "Hi<|end|><|end|>");
/// assert_eq!(rendered.barriers, [3]);
/// # }
/// # Ok::<(), exsa_core::chat::ChatTemplateError>(())
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    program: Program,
    bos: String,
    eos: String,
    finder: ControlFinder,
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
        /// What is wrong and on which line.
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
        /// The name of the field or variable, or `tools`.
        name: String,
    },
    /// Messages hold every one of the characters U+FDD0 to U+FDEF, one of which marks what users wrote.
    #[error("the messages hold every one of the noncharacters U+FDD0 to U+FDEF; at least one has to be free")]
    Noncharacters,
    /// The template refused the conversation, by `raise_exception`.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template failed on the conversation.
    #[error("the chat template failed: {problem}")]
    Render {
        /// What is wrong and on which line.
        problem: String,
    },
    /// The template does more work than any conversation needs, as one does that never ends.
    #[error("the chat template does not come to an end within its budget of steps")]
    Endless,
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
        for text in [source, &texts.bos, &texts.eos] {
            used.add(text);
        }
        let finder = ControlFinder::new(texts.control.iter().map(String::as_str));
        Ok(Self { program, bos: texts.bos, eos: texts.eos, finder, used })
    }

    /// The template of a model: `template`, as
    /// [`ModelInfo::chat_template`](crate::model_info::ModelInfo::chat_template) has it. Without one, ChatML serves
    /// if the vocabulary has `<|im_start|>`; else nothing tells how the model was trained to chat, and the result is
    /// [`ChatTemplateError::Missing`].
    pub fn for_model(template: Option<&str>, tokenizer: &dyn Tokenizer) -> Result<Self, ChatTemplateError> {
        let texts = ControlTexts::of(tokenizer);
        match template {
            Some(source) => Self::parse(source, texts),
            None if texts.control.iter().any(|text| text == "<|im_start|>") => Self::parse(CHATML, texts),
            None => Err(ChatTemplateError::Missing),
        }
    }

    /// Renders a conversation.
    ///
    /// The template sees `messages`, `tools` and `documents` (none where there are none), `add_generation_prompt`,
    /// `bos_token`, `eos_token` and the options' variables.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<Rendered, ChatTemplateError> {
        let mut used = self.used;
        for (index, message) in messages.iter().enumerate() {
            check_role(index, &message.role)?;
            used.add(&message.content);
            for (field, value) in &message.extra {
                if field == "role" {
                    return Err(ChatTemplateError::Field { field: field.clone() });
                }
                check_depth(field, value)?;
                used.add(field);
                used.add_json(value);
            }
        }
        for tool in &options.tools {
            check_depth("tools", tool)?;
            used.add_json(tool);
        }
        for (name, value) in &options.variables {
            if RESERVED.contains(&name.as_str()) {
                return Err(ChatTemplateError::Field { field: name.clone() });
            }
            check_depth(name, value)?;
            used.add_json(value);
        }
        let marker = used.unused().ok_or(ChatTemplateError::Noncharacters)?;

        let messages = messages.iter().map(|message| self.fields(message, marker)).collect();
        let tools = match options.tools.as_slice() {
            [] => Json::Null,
            tools => {
                let mut tools = Json::Array(tools.to_vec());
                self.finder.mark_json(&mut tools, marker);
                tools
            }
        };
        let mut variables = vec![
            ("messages".to_owned(), Json::Array(messages)),
            ("tools".to_owned(), tools),
            ("documents".to_owned(), Json::Null),
            ("add_generation_prompt".to_owned(), Json::Bool(options.add_generation_prompt)),
            ("bos_token".to_owned(), Json::from(self.bos.as_str())),
            ("eos_token".to_owned(), Json::from(self.eos.as_str())),
        ];
        variables.extend(options.variables.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut text = self.program.render(variables, options)?;
        let barriers = take_markers(&mut text, marker);
        Ok(Rendered { text, barriers })
    }

    /// A message as the template sees it, with markers.
    fn fields(&self, message: &Message, marker: char) -> Json {
        let mut fields = vec![("role".to_owned(), Json::from(message.role.as_str()))];
        if !message.extra.contains_key("content") {
            fields.push(("content".to_owned(), Json::from(message.content.as_str())));
        }
        fields.extend(message.extra.iter().map(|(field, value)| (field.clone(), value.clone())));
        for (field, value) in &mut fields[1..] {
            self.finder.mark_string(field, marker);
            self.finder.mark_json(value, marker);
        }
        Json::Object(fields)
    }
}

/// Variables that are made of the conversation and the options.
const RESERVED: [&str; 6] =
    ["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"];

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

/// ChatML, as models use it that were trained on the bare format.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content \
    + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
