//! Converts parsed GBNF rules to Lark.

use super::super::lark::quoted;
use super::super::limits;
use super::parse::{Alternatives, Ast, Item, Symbol};
use super::{invalid, limit};
use crate::constraint::ConstraintError;
use crate::token::TokenId;
use std::fmt::Write;

/// Properties of a rule.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    /// Whether it refers to itself, to a recursive rule, or to a token.
    is_context_free: bool,
    /// Whether it matches the empty text.
    is_nullable: bool,
    /// Whether it matches only the empty text.
    is_empty: bool,
}

struct Emitter<'a> {
    facts: Vec<Facts>,
    /// Tokens that end an answer.
    ends: &'a [TokenId],
    out: String,
    /// Terminals for runs of regular items.
    runs: usize,
}

pub(super) fn lark(ast: &Ast, ends: &[TokenId]) -> Result<String, ConstraintError> {
    let facts = facts(ast);
    if facts[0].is_empty {
        return Err(invalid("it only matches the empty text".to_owned()));
    }
    let mut emitter = Emitter { facts, ends, out: String::new(), runs: 0 };
    let root = emitter.symbol(&Symbol::Rule(0));
    let optional = if emitter.facts[0].is_nullable && !emitter.facts[0].is_context_free { "?" } else { "" };
    // Writing to a string cannot fail.
    let _ = writeln!(emitter.out, "start: {root}{optional}");
    for (index, alternatives) in ast.rules.iter().enumerate() {
        if !emitter.facts[index].is_empty {
            emitter.rule(index, alternatives);
        }
        if emitter.out.len() > limits::GRAMMAR_BYTES_MAX {
            return Err(limit("bytes as Lark", limits::GRAMMAR_BYTES_MAX));
        }
    }
    Ok(emitter.out)
}

impl Emitter<'_> {
    fn rule(&mut self, index: usize, alternatives: &Alternatives) {
        let facts = self.facts[index];
        let name = self.symbol(&Symbol::Rule(index));
        let mut sources = Vec::new();
        let mut empty = false;
        for items in alternatives {
            let source = if facts.is_context_free { self.context_free(items) } else { self.regular(items) };
            empty |= source.is_empty();
            if !source.is_empty() {
                sources.push(source);
            }
        }
        let sources = sources.join(" | ");
        // A terminal cannot have an empty alternative.
        let _ = if empty {
            writeln!(self.out, "{name}: ({sources})?")
        } else {
            writeln!(self.out, "{name}: {sources}")
        };
    }

    /// A sequence inside of a terminal.
    fn regular(&self, items: &[Item]) -> String {
        let items = items.iter().filter(|item| !self.is_empty(&item.symbol));
        items.map(|item| self.item(item)).collect::<Vec<_>>().join(" ")
    }

    /// A sequence of a rule: runs of regular items become terminals.
    fn context_free(&mut self, items: &[Item]) -> String {
        let mut sources = Vec::new();
        let mut rest = items;
        while let Some(first) = rest.first() {
            if self.is_context_free(&first.symbol) {
                sources.push(self.item(first));
                rest = &rest[1..];
                continue;
            }
            let len = rest.iter().take_while(|item| !self.is_context_free(&item.symbol)).count();
            let (run, behind) = rest.split_at(len);
            rest = behind;
            let source = self.regular(run);
            if source.is_empty() {
                continue;
            }
            let name = format!("RUN_{}", self.runs);
            self.runs += 1;
            let _ = writeln!(self.out, "{name}: {source}");
            // The lexer does not match empty lexemes.
            let nullable = run.iter().all(|item| item.min == 0 || self.is_nullable(&item.symbol));
            sources.push(if nullable { format!("{name}?") } else { name });
        }
        sources.join(" ")
    }

    fn item(&self, item: &Item) -> String {
        let symbol = self.symbol(&item.symbol);
        match (item.min, item.max) {
            (1, Some(1)) => symbol,
            (0, Some(1)) => format!("{symbol}?"),
            (0, None) => format!("{symbol}*"),
            (1, None) => format!("{symbol}+"),
            (min, None) => format!("{symbol}{{{min},}}"),
            (min, Some(max)) => format!("{symbol}{{{min},{max}}}"),
        }
    }

    fn symbol(&self, symbol: &Symbol) -> String {
        match symbol {
            Symbol::Literal(text) => quoted(text),
            Symbol::Class(class) => format!("/{class}/"),
            Symbol::Rule(index) if self.facts[*index].is_context_free => format!("rule_{index}"),
            Symbol::Rule(index) => format!("RULE_{index}"),
            Symbol::Token(id) => format!("<[{id}]>"),
            Symbol::OtherToken(id) => {
                let ends: String = self.ends.iter().map(|end| format!(",{end}")).collect();
                format!("<[^{id}{ends}]>")
            }
        }
    }

    fn is_context_free(&self, symbol: &Symbol) -> bool {
        match symbol {
            Symbol::Rule(index) => self.facts[*index].is_context_free,
            Symbol::Token(_) | Symbol::OtherToken(_) => true,
            Symbol::Literal(_) | Symbol::Class(_) => false,
        }
    }

    fn is_nullable(&self, symbol: &Symbol) -> bool {
        matches!(symbol, Symbol::Rule(index) if self.facts[*index].is_nullable)
    }

    fn is_empty(&self, symbol: &Symbol) -> bool {
        matches!(symbol, Symbol::Rule(index) if self.facts[*index].is_empty)
    }
}

/// The properties of all rules.
fn facts(ast: &Ast) -> Vec<Facts> {
    let users = users(ast);
    let context_free = context_free(ast, &users);
    let rule = |item: &Item| match item.symbol {
        Symbol::Rule(rule) => Some(rule),
        _ => None,
    };
    let nullable = least(ast, &users, |index, nullable| {
        let is_nullable = |item: &Item| item.min == 0 || rule(item).is_some_and(|rule| nullable[rule]);
        ast.rules[index].iter().any(|items| items.iter().all(is_nullable))
    });
    let has_text = least(ast, &users, |index, has_text| {
        ast.rules[index].iter().flatten().any(|item| rule(item).is_none_or(|rule| has_text[rule]))
    });
    let facts = (0..ast.rules.len()).map(|index| Facts {
        is_context_free: context_free[index],
        is_nullable: nullable[index],
        is_empty: !has_text[index],
    });
    facts.collect()
}

/// The rules that refer to each rule.
fn users(ast: &Ast) -> Vec<Vec<usize>> {
    let mut users = vec![Vec::new(); ast.rules.len()];
    for (index, alternatives) in ast.rules.iter().enumerate() {
        for item in alternatives.iter().flatten() {
            if let Symbol::Rule(rule) = item.symbol {
                users[rule].push(index);
            }
        }
    }
    users
}

/// The smallest set of rules for which `holds` is true, given the set.
fn least(ast: &Ast, users: &[Vec<usize>], holds: impl Fn(usize, &[bool]) -> bool) -> Vec<bool> {
    let mut set = vec![false; ast.rules.len()];
    let mut open: Vec<usize> = (0..set.len()).collect();
    while let Some(index) = open.pop() {
        if !set[index] && holds(index, &set) {
            set[index] = true;
            open.extend(&users[index]);
        }
    }
    set
}

/// Which rules reach a cycle or a token.
fn context_free(ast: &Ast, users: &[Vec<usize>]) -> Vec<bool> {
    // A rule is regular if all its references are regular (Kahn's algorithm); the remaining rules are not.
    let mut context_free = vec![true; ast.rules.len()];
    let mut open = vec![0usize; ast.rules.len()];
    users.iter().flatten().for_each(|user| open[*user] += 1);
    let mut ready = Vec::new();
    for (index, alternatives) in ast.rules.iter().enumerate() {
        if alternatives
            .iter()
            .flatten()
            .any(|item| matches!(item.symbol, Symbol::Token(_) | Symbol::OtherToken(_)))
        {
            open[index] = usize::MAX;
        }
        if open[index] == 0 {
            ready.push(index);
        }
    }
    while let Some(index) = ready.pop() {
        context_free[index] = false;
        for &user in &users[index] {
            open[user] -= 1;
            if open[user] == 0 {
                ready.push(user);
            }
        }
    }
    context_free
}
