//! A tokenizer with control tokens, and templates rendered for it.

use exsa_core::TokenId;
use exsa_core::chat::{ChatOptions, ChatTemplate, ChatTemplateError, Message, ToolFallback};
use exsa_core::tokenizer::{EncodeOptions, SpecialIds, Tokenizer};

/// A tokenizer of bytes and control tokens.
pub struct Bytes {
    control: Vec<&'static str>,
    pub special: SpecialIds,
}

impl Bytes {
    pub fn new(control: &[&'static str]) -> Self {
        let special = SpecialIds { bos: Some(256), eos: Some(257), ..SpecialIds::default() };
        Self { control: control.to_vec(), special }
    }

    /// The control tokens of a text, and how many bytes are none.
    pub fn count(&self, text: &str, options: &EncodeOptions<'_>) -> (Vec<&str>, usize) {
        let mut ids = Vec::new();
        self.encode(text, options, &mut ids);
        let plain = ids.iter().filter(|&&id| id < 256).count();
        let control = ids.iter().filter(|&&id| id >= 256).map(|&id| self.control[id as usize - 256]);
        (control.collect(), plain)
    }
}

impl Tokenizer for Bytes {
    fn n_vocab(&self) -> usize {
        256 + self.control.len()
    }

    fn encode(&self, text: &str, options: &EncodeOptions<'_>, out: &mut Vec<TokenId>) {
        let mut at = 0;
        while at < text.len() {
            let found = self.control.iter().position(|control| {
                let end = at + control.len();
                options.parse_special
                    && text.as_bytes()[at..].starts_with(control.as_bytes())
                    && !options.protected_offsets.iter().any(|offset| at < *offset && *offset < end)
            });
            match found {
                Some(i) => {
                    out.push(256 + i as TokenId);
                    at += self.control[i].len();
                }
                None => {
                    out.push(text.as_bytes()[at].into());
                    at += 1;
                }
            }
        }
    }

    fn piece(&self, id: TokenId, out: &mut Vec<u8>) {
        out.extend(u8::try_from(id));
    }

    fn token_text(&self, id: TokenId) -> Option<&str> {
        self.control.get((id as usize).checked_sub(256)?).copied()
    }

    fn is_control(&self, id: TokenId) -> bool {
        self.token_text(id).is_some()
    }

    fn control_tokens(&self) -> Vec<(TokenId, String)> {
        (256..).zip(self.control.iter().map(|&text| text.to_owned())).collect()
    }

    fn leading_space(&self) -> bool {
        false
    }

    fn special(&self) -> &SpecialIds {
        &self.special
    }
}

pub const CHATML: [&str; 4] = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"];

pub fn parse(source: &str) -> Result<ChatTemplate, ChatTemplateError> {
    ChatTemplate::for_model(Some(source), &Bytes::new(&CHATML))
}

pub fn render(source: &str, messages: &[Message]) -> Result<String, ChatTemplateError> {
    Ok(parse(source)?.render(messages, &ChatOptions::default())?.text)
}

/// The text and the control tokens in it, of a vocabulary with these control tokens.
pub fn render_with(control: &[&'static str], source: &str, messages: &[Message]) -> (String, Vec<String>) {
    let tokenizer = Bytes::new(control);
    let template = ChatTemplate::for_model(Some(source), &tokenizer).unwrap();
    let options = ChatOptions::default().tool_fallback(ToolFallback::Omit);
    let rendered = template.render(messages, &options).unwrap();
    let (found, _) = tokenizer.count(&rendered.text, &rendered.encode_options());
    let found = found.into_iter().map(str::to_owned).collect();
    (rendered.text, found)
}
