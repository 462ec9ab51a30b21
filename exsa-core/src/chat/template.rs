//! A model's chat template, and how it is applied.

use super::jinja::Program;
use super::{ChatOptions, Message, Rendered};
use crate::tokenizer::Tokenizer;

/// What a template has to know of the vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlTexts {
    /// Text of the BOS token, the template's `bos_token`; empty if there is none.
    pub bos: String,
    /// Text of the EOS token, the template's `eos_token`; empty if there is none.
    pub eos: String,
    /// Texts that encoding with [`EncodeOptions::special`](crate::tokenizer::EncodeOptions::special) makes control tokens of. What a
    /// message holds of them stays plain text.
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
#[derive(Debug)]
pub struct ChatTemplate {
    program: Program,
    texts: ControlTexts,
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
    /// The template is not valid.
    #[error("the chat template cannot be parsed: {problem}")]
    Parse {
        /// What is wrong and on which line.
        problem: String,
    },
    /// The template refused the conversation, by `raise_exception`.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template failed on the conversation.
    #[error("the chat template failed: {problem}")]
    Render {
        /// What is wrong and on which line.
        problem: String,
    },
}

impl ChatTemplate {
    /// Parses the Jinja `source` of a template for a vocabulary with the control tokens `texts`.
    pub fn parse(source: &str, texts: ControlTexts) -> Result<Self, ChatTemplateError> {
        Ok(Self { program: Program::parse(source)?, texts })
    }

    /// The template of a model: `template`, as
    /// [`ModelInfo::chat_template`](crate::model_info::ModelInfo::chat_template) has it. Without one, ChatML serves
    /// if the vocabulary has `<|im_start|>`; else there is no way to tell how the model was
    /// trained to chat, and the result is [`ChatTemplateError::Missing`].
    pub fn for_model(template: Option<&str>, tokenizer: &dyn Tokenizer) -> Result<Self, ChatTemplateError> {
        let texts = ControlTexts::of(tokenizer);
        match template {
            Some(source) => Self::parse(source, texts),
            None if texts.control.iter().any(|text| text == "<|im_start|>") => Self::parse(CHATML, texts),
            None => Err(ChatTemplateError::Missing),
        }
    }

    /// Renders a conversation.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<Rendered, ChatTemplateError> {
        let text = self.program.render(messages, options, &self.texts)?;
        Ok(Rendered { text, barriers: Vec::new() })
    }
}

/// ChatML, as models use it that were trained on the format alone.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content \
    + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
