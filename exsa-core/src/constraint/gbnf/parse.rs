//! The parser of GBNF.

use super::super::limits;
use super::{invalid, limit};
use crate::constraint::ConstraintError;
use crate::token::TokenId;
use std::collections::HashMap;

/// Maximum nesting of groups.
const DEPTH_MAX: usize = 64;
/// Maximum repetitions of an item; llama.cpp's limit.
const REPEAT_MAX: u32 = 2000;

/// A grammar: rules by index. Rule 0 is `root`.
#[derive(Debug, Default)]
pub(super) struct Ast {
    pub(super) rules: Vec<Alternatives>,
}

/// Alternatives, each a sequence.
pub(super) type Alternatives = Vec<Vec<Item>>;

/// A symbol and how often it occurs.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) symbol: Symbol,
    pub(super) min: u32,
    /// `None` for no limit.
    pub(super) max: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) enum Symbol {
    /// A text, not empty.
    Literal(String),
    /// Characters, as a class of the crate `regex`.
    Class(String),
    /// A rule, or a group, which is a rule without a name.
    Rule(usize),
    /// A token by id.
    Token(TokenId),
    /// Any token except this one and those that end an answer.
    OtherToken(TokenId),
}

pub(super) struct Parser<'a> {
    source: &'a str,
    at: usize,
    control: &'a dyn Fn(&str) -> Option<TokenId>,
    ast: Ast,
    names: HashMap<&'a str, usize>,
    defined: Vec<bool>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(source: &'a str, control: &'a dyn Fn(&str) -> Option<TokenId>) -> Self {
        let mut parser =
            Self { source, at: 0, control, ast: Ast::default(), names: HashMap::new(), defined: Vec::new() };
        parser.rule("root");
        parser
    }

    pub(super) fn grammar(mut self) -> Result<Ast, ConstraintError> {
        self.space(true);
        while self.peek().is_some() {
            self.definition()?;
        }
        let undefined = self.names.iter().find(|(_, index)| !self.defined[**index]);
        match undefined {
            Some((name, _)) => Err(invalid(format!("the rule {name} is not defined"))),
            None => Ok(self.ast),
        }
    }

    fn definition(&mut self) -> Result<(), ConstraintError> {
        let name = self.name().ok_or_else(|| self.error("a rule name is expected"))?;
        self.space(false);
        if !self.take("::=") {
            return Err(self.error("::= is expected after a rule name"));
        }
        self.space(true);
        let index = self.rule(name);
        if std::mem::replace(&mut self.defined[index], true) {
            return Err(invalid(format!("the rule {name} is defined twice")));
        }
        self.ast.rules[index] = self.alternatives(0)?;
        if self.peek().is_some_and(|c| c != '\n' && c != '\r') {
            return Err(self.error("the end of the rule is expected"));
        }
        self.space(true);
        if self.ast.rules.len() > limits::RULES_MAX {
            return Err(limit("rules and groups", limits::RULES_MAX));
        }
        Ok(())
    }

    fn alternatives(&mut self, depth: usize) -> Result<Alternatives, ConstraintError> {
        if depth > DEPTH_MAX {
            return Err(limit("levels of nesting", DEPTH_MAX));
        }
        let mut alternatives = vec![self.sequence(depth)?];
        while self.take("|") {
            self.space(true);
            alternatives.push(self.sequence(depth)?);
        }
        Ok(alternatives)
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Item>, ConstraintError> {
        let mut items: Vec<Item> = Vec::new();
        loop {
            let symbols = match self.peek() {
                Some('"') => self.literal()?.map(Symbol::Literal),
                Some('[') => Some(Symbol::Class(self.class()?)),
                Some('.') => {
                    self.at += 1;
                    Some(Symbol::Class("(?s:.)".to_owned()))
                }
                Some('<') => Some(Symbol::Token(self.token()?)),
                Some('!') => {
                    self.at += 1;
                    Some(Symbol::OtherToken(self.token()?))
                }
                Some('(') => {
                    self.at += 1;
                    self.space(true);
                    let alternatives = self.alternatives(depth + 1)?;
                    if !self.take(")") {
                        return Err(self.error("')' is expected"));
                    }
                    self.ast.rules.push(alternatives);
                    self.defined.push(true);
                    Some(Symbol::Rule(self.ast.rules.len() - 1))
                }
                Some(c) if is_word(c) => {
                    let name = self.name().unwrap_or_default();
                    Some(Symbol::Rule(self.rule(name)))
                }
                _ => return Ok(items),
            };
            // A line may only end inside of a group.
            self.space(depth > 0);
            let (mut min, mut max) = (1, Some(1));
            while let Some(repeat) = self.repeat()? {
                (min, max) = repeat;
                self.space(depth > 0);
            }
            if let Some(symbol) = symbols.filter(|_| max != Some(0)) {
                items.push(Item { symbol, min, max });
            }
        }
    }

    /// A repetition after an item.
    fn repeat(&mut self) -> Result<Option<(u32, Option<u32>)>, ConstraintError> {
        let repeat = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => return self.range().map(Some),
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(repeat))
    }

    fn range(&mut self) -> Result<(u32, Option<u32>), ConstraintError> {
        self.at += 1;
        self.space(false);
        let min = self.number()?.unwrap_or(0);
        self.space(false);
        let max = if self.take(",") {
            self.space(false);
            self.number()?
        } else {
            Some(min)
        };
        self.space(false);
        if !self.take("}") {
            return Err(self.error("'}' is expected"));
        }
        if max.is_some_and(|max| max < min) {
            return Err(self.error("the maximum number of repetitions is below the minimum"));
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<Option<u32>, ConstraintError> {
        let digits = self.rest().len() - self.rest().trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let text = &self.rest()[..digits];
        if text.is_empty() {
            return Ok(None);
        }
        let number = text.parse().ok().filter(|number| *number <= REPEAT_MAX);
        self.at += digits;
        number.map(Some).ok_or_else(|| limit("repetitions", REPEAT_MAX as usize))
    }

    /// A text in quotes; `None` if it is empty.
    fn literal(&mut self) -> Result<Option<String>, ConstraintError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(Some(text).filter(|text| !text.is_empty())),
                Some('\\') => text.push(self.escape()?),
                Some(c) => text.push(c),
                None => return Err(self.error("'\"' is expected")),
            }
        }
    }

    /// A class of characters.
    fn class(&mut self) -> Result<String, ConstraintError> {
        self.at += 1;
        let negated = self.take("^");
        let mut class = String::from(if negated { "[^" } else { "[" });
        let mut empty = true;
        while !self.take("]") {
            let first = self.class_char()?;
            let last = if self.rest().starts_with('-') && !self.rest().starts_with("-]") {
                self.at += 1;
                self.class_char()?
            } else {
                first
            };
            if last < first {
                return Err(self.error("a range of characters ends before it begins"));
            }
            class.push_str(&format!("\\x{{{:X}}}-\\x{{{:X}}}", first as u32, last as u32));
            empty = false;
        }
        if empty {
            return Err(self.error("a class of characters is empty"));
        }
        class.push(']');
        Ok(class)
    }

    fn class_char(&mut self) -> Result<char, ConstraintError> {
        match self.next() {
            Some('\\') => self.escape(),
            Some(c) => Ok(c),
            None => Err(self.error("']' is expected")),
        }
    }

    /// The character of an escape sequence, after its backslash.
    fn escape(&mut self) -> Result<char, ConstraintError> {
        let digits = match self.next() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some('t') => return Ok('\t'),
            Some('r') => return Ok('\r'),
            Some('n') => return Ok('\n'),
            Some(c @ ('\\' | '"' | '[' | ']' | '^' | '-' | '/' | '\'' | '.' | '{' | '}' | '(' | ')')) => {
                return Ok(c);
            }
            _ => return Err(self.error("the escape is not supported")),
        };
        let hex = self.rest().get(..digits);
        let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let c = code.and_then(char::from_u32);
        let c =
            c.ok_or_else(|| self.error(&format!("{digits} hexadecimal digits of a character are expected")))?;
        self.at += digits;
        Ok(c)
    }

    /// `<[1000]>`, or the text of a control token, such as `<think>`.
    fn token(&mut self) -> Result<TokenId, ConstraintError> {
        if !self.rest().starts_with('<') {
            return Err(self.error("a token is expected after '!'"));
        }
        let end = self.rest().find('>').ok_or_else(|| self.error("'>' is expected"))?;
        let text = &self.rest()[..=end];
        let number = text.strip_prefix("<[").and_then(|text| text.strip_suffix("]>"));
        let token = match number {
            Some(number) => number.parse().ok(),
            None => (self.control)(text),
        };
        let token =
            token.ok_or_else(|| self.error(&format!("the vocabulary has no control token {text}")))?;
        self.at += text.len();
        Ok(token)
    }

    /// The index of a rule.
    fn rule(&mut self, name: &'a str) -> usize {
        let next = self.ast.rules.len();
        let index = *self.names.entry(name).or_insert(next);
        if index == next {
            self.ast.rules.push(Vec::new());
            self.defined.push(false);
        }
        index
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        self.at += len;
        Some(&rest[..len]).filter(|name| !name.is_empty())
    }

    /// Skips white space and comments, including line ends if `lines` is set.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\n' | '\r' if lines => self.at += 1,
                '#' => {
                    let rest = self.rest();
                    self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn error(&self, problem: &str) -> ConstraintError {
        let line = self.source[..self.at].lines().count().max(1);
        invalid(format!("line {line}: {problem}"))
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}
