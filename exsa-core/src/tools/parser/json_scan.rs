//! Incremental validation of JSON text, byte by byte.

/// Maximum nesting of arrays and objects, as in [`Json`](crate::chat::Json).
const DEPTH_MAX: usize = 64;

/// Pushdown automaton for RFC 8259, in memory proportional to the nesting.
///
/// Unlike the RFC, it accepts raw control characters in strings, which models write; the caller escapes them.
#[derive(Clone, Debug)]
pub(super) struct JsonScan {
    /// Open containers; `true` for an object.
    stack: Vec<bool>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    /// After `[`: a value or `]`.
    ArrayStart,
    /// After `{`: a key or `}`.
    ObjectStart,
    /// After `,` in an object.
    Key,
    Colon,
    AfterValue,
    String {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Unicode {
        key: bool,
        left: u8,
    },
    Word(&'static [u8]),
    Number(Number),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Int,
    Dot,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// The text is not valid JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl Default for JsonScan {
    fn default() -> Self {
        Self { stack: Vec::new(), state: State::Value }
    }
}

impl JsonScan {
    /// Reads the next byte.
    pub(super) fn push(&mut self, byte: u8) -> Result<(), Invalid> {
        self.state = match self.state {
            State::Done => return if is_space(byte) { Ok(()) } else { Err(Invalid) },
            State::String { key } => match byte {
                b'"' if key => State::Colon,
                b'"' => self.after_value(),
                b'\\' => State::Escape { key },
                _ => State::String { key },
            },
            State::Escape { key } => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::String { key },
                b'u' => State::Unicode { key, left: 4 },
                _ => return Err(Invalid),
            },
            State::Unicode { key, left } => match (byte.is_ascii_hexdigit(), left) {
                (true, 1) => State::String { key },
                (true, _) => State::Unicode { key, left: left - 1 },
                (false, _) => return Err(Invalid),
            },
            State::Word([next, rest @ ..]) if *next == byte => {
                if rest.is_empty() {
                    self.after_value()
                } else {
                    State::Word(rest)
                }
            }
            State::Word(_) => return Err(Invalid),
            State::Number(number) => match number.next(byte) {
                Some(number) => State::Number(number),
                None if number.may_end() => {
                    self.state = self.after_value();
                    return self.push(byte);
                }
                None => return Err(Invalid),
            },
            state if is_space(byte) => state,
            State::ArrayStart if byte == b']' => self.close(),
            State::Value | State::ArrayStart => self.value(byte)?,
            State::ObjectStart if byte == b'}' => self.close(),
            State::ObjectStart | State::Key => match byte {
                b'"' => State::String { key: true },
                _ => return Err(Invalid),
            },
            State::Colon if byte == b':' => State::Value,
            State::Colon => return Err(Invalid),
            State::AfterValue => match (byte, self.stack.last()) {
                (b',', Some(true)) => State::Key,
                (b',', Some(false)) => State::Value,
                (b'}', Some(true)) | (b']', Some(false)) => self.close(),
                _ => return Err(Invalid),
            },
        };
        Ok(())
    }

    /// Open containers.
    pub(super) fn depth(&self) -> usize {
        self.stack.len()
    }

    /// Whether the value is complete.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the next byte is inside a string, or ends it.
    pub(super) fn in_string(&self) -> bool {
        matches!(self.state, State::String { .. } | State::Escape { .. } | State::Unicode { .. })
    }

    /// Whether the next byte is inside a key, or ends it.
    pub(super) fn in_key(&self) -> bool {
        matches!(
            self.state,
            State::String { key: true } | State::Escape { key: true } | State::Unicode { key: true, .. }
        )
    }

    /// Whether a number may continue.
    pub(super) fn in_number(&self) -> bool {
        matches!(self.state, State::Number(_))
    }

    /// Whether a key may begin.
    pub(super) fn expects_key(&self) -> bool {
        matches!(self.state, State::ObjectStart | State::Key)
    }

    /// Whether a value may begin.
    pub(super) fn expects_value(&self) -> bool {
        matches!(self.state, State::Value | State::ArrayStart)
    }

    /// Whether a value has just ended.
    pub(super) fn after(&self) -> bool {
        matches!(self.state, State::AfterValue)
    }

    fn value(&mut self, byte: u8) -> Result<State, Invalid> {
        Ok(match byte {
            b'{' | b'[' if self.stack.len() == DEPTH_MAX => return Err(Invalid),
            b'{' => {
                self.stack.push(true);
                State::ObjectStart
            }
            b'[' => {
                self.stack.push(false);
                State::ArrayStart
            }
            b'"' => State::String { key: false },
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Int),
            _ => return Err(Invalid),
        })
    }

    fn close(&mut self) -> State {
        self.stack.pop();
        self.after_value()
    }

    fn after_value(&self) -> State {
        if self.stack.is_empty() { State::Done } else { State::AfterValue }
    }
}

impl Number {
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Int, b'0'..=b'9') => Self::Int,
            (Self::Zero | Self::Int, b'.') => Self::Dot,
            (Self::Dot | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Int | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => Self::ExponentDigits,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Int | Self::Fraction | Self::ExponentDigits)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str) -> bool {
        let mut scan = JsonScan::default();
        let taken = text.bytes().all(|byte| scan.push(byte).is_ok());
        taken
            && (scan.is_done() || scan.depth() == 0 && matches!(scan.state, State::Number(n) if n.may_end()))
    }

    #[test]
    fn takes_what_the_grammar_allows() {
        for text in
            ["{}", "[1, -0.5e+3, true, null]", r#"{"a": {"b\u00e9\n": [""]}, "c": 0}"#, " 12 ", "\"\t\""]
        {
            assert!(scan(text), "{text}");
        }
        for text in
            ["{,}", "[1,]", "01", "{\"a\" 1}", "tru ", "{\"a\":1,}", "\"\\x\"", "1.", "[}", "{} {}", "-"]
        {
            assert!(!scan(text), "{text}");
        }
        assert!(!scan(&"[".repeat(65)) && scan(&format!("{}{}", "[".repeat(64), "]".repeat(64))));
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"([\[\]{},:"a0-9\-.eE ]|true|\\n|\\u00e9){0,12}"#) {
            // Raw control characters do not occur in these texts.
            let number_too_large = serde_json::from_str::<serde_json::Value>(&text)
                .is_err_and(|error| error.to_string().contains("out of range"));
            prop_assume!(!number_too_large);
            prop_assert_eq!(scan(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
