//! Checks and changes of a template's source before minijinja compiles it.
//!
//! A template comes with a model file, which may be malicious, and minijinja processes expressions and values
//! by recursion: a thousand-fold `not not not`, or a list that a loop nests into itself, would overflow the
//! stack and abort the program. Therefore expressions have limits, far above what templates need, and every
//! assignment passes [`depth`](super::depth), which limits the nesting of values.
//!
//! Tags are found exactly as minijinja finds them. An invalid tag is left unchanged, for minijinja to refuse.

use std::ops::Range;

/// Maximum names, numbers, strings and operators in one tag.
const TAG_TOKENS_MAX: usize = 512;

/// Maximum nesting of brackets in one tag.
const BRACKETS_MAX: usize = 12;

/// Maximum `elif` tags in a template.
const ELIFS_MAX: usize = 256;

/// Maximum `macro` and `call` blocks in a template.
const MACROS_MAX: usize = 64;

/// Maximum lines of a template, and maximum characters in a compiled line. minijinja counts both in 16 bits.
const LINES_MAX: usize = 65_000;
const LINE_CHARS_MAX: usize = 65_000;

/// Names of the filters for assigned values.
pub(super) const CHECK_VARIABLE: &str = "exsa_variable";
pub(super) const CHECK_ATTRIBUTE: &str = "exsa_attribute";

/// Name of the filter for subscripts and operands of `==`, `!=` and `in`, which removes the markers of user
/// text.
pub(super) const PLAIN: &str = "exsa_plain";

/// The source to compile: line ends are unified, `generation` tags (which mark the model's text for training)
/// become blocks that are always rendered, assignments are checked, and comparisons and lookups use text
/// without markers. An error says which limit is exceeded, and where.
pub(super) fn prepare(source: &str) -> Result<String, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut lexer = Lexer { source: &source, at: 0, brackets: 0 };
    let (mut elifs, mut macros) = (0, 0);
    let mut done = 0;
    while let Some(tag) = lexer.next_tag() {
        let tokens = lexer.tokens();
        let over = |what: &str, max: usize| {
            let line = 1 + source.as_bytes()[..tag.start].iter().filter(|&&b| b == b'\n').count();
            Err(format!("line {line}: more than {max} {what}"))
        };
        if tokens.len() > TAG_TOKENS_MAX {
            return over("parts in one tag", TAG_TOKENS_MAX);
        }
        if tokens.iter().any(|token| token.depth > BRACKETS_MAX as isize) {
            return over("brackets within each other", BRACKETS_MAX);
        }
        let mut insert = |at: usize, text: &str| {
            out.push_str(&source[done..at]);
            out.push_str(text);
            done = at;
        };
        let block =
            (tag.kind == TagKind::Block).then(|| tokens.first().map(|name| name.range.clone())).flatten();
        let name = block.clone().map_or("", |name| &source[name]);
        let mut check = None;
        match name {
            "generation" | "endgeneration" if tokens.len() == 1 => {
                let name_range = block.unwrap_or_default();
                insert(name_range.start, if name == "generation" { "if true" } else { "endif" });
                done = name_range.end;
                continue;
            }
            "elif" => elifs += 1,
            "macro" | "call" => macros += 1,
            "set" => check = assignment(&source, &tokens),
            _ => {}
        }
        if let Some((value, _)) = &check {
            insert(value.start, "(");
        }
        let mut operands = comparisons(&source, &tokens, name);
        // Operands are nested or disjoint, so that an end and a beginning never coincide.
        let plain = format!(")|{PLAIN}");
        operands.sort_unstable();
        for (at, opens) in operands {
            insert(at, if opens { "(" } else { &plain });
        }
        if let Some((value, check)) = check {
            insert(value.end, &format!(")|{check}"));
        }
        if elifs > ELIFS_MAX {
            return over("elif tags", ELIFS_MAX);
        }
        if macros > MACROS_MAX {
            return over("macro and call tags", MACROS_MAX);
        }
    }
    out.push_str(&source[done..]);
    for (i, line) in out.split('\n').enumerate() {
        if i >= LINES_MAX {
            return Err(format!("more than {LINES_MAX} lines"));
        }
        if line.len() > LINE_CHARS_MAX && line.chars().count() > LINE_CHARS_MAX {
            return Err(format!("line {}: more than {LINE_CHARS_MAX} characters in a line", i + 1));
        }
    }
    Ok(out)
}

/// Range of the value of a `set` tag, and the filter that checks it.
fn assignment(source: &str, tokens: &[Token]) -> Option<(Range<usize>, &'static str)> {
    let outside = tokens.first()?.depth;
    let text = |token: &Token| &source[token.range.clone()];
    let equals = tokens.iter().position(|token| token.depth == outside && text(token) == "=")?;
    let (target, value) = (&tokens[..equals], &tokens[equals + 1..]);
    // A superfluous closing bracket would let a part of the value escape the check. Such an expression is
    // invalid, so it is left unchanged for minijinja to refuse.
    if value.iter().any(|token| token.depth < outside) {
        return None;
    }
    let check = if target.iter().any(|token| text(token) == ".") { CHECK_ATTRIBUTE } else { CHECK_VARIABLE };
    Some((value.first()?.range.start..value.last()?.range.end, check))
}

/// The ends of subscripts and of the operands of `==`, `!=` and `in`: each offset, and whether an operand
/// begins there. Empty if the tag's brackets do not match, which minijinja will refuse.
fn comparisons(source: &str, tokens: &[Token], name: &str) -> Vec<(usize, bool)> {
    /// State of the expression within one pair of brackets.
    #[derive(Clone, Copy, Default)]
    struct Level {
        /// First and last token of the current operand.
        operand: Option<(usize, usize)>,
        /// Whether it is the right side of a comparison.
        compared: bool,
        /// The first token, if the brackets hold a subscript other than a slice.
        subscript: Option<usize>,
    }
    let text = |i: usize| tokens.get(i).map_or("", |token| &source[token.range.clone()]);
    let mut ends = Vec::new();
    // Numbers and strings of the template itself have no markers.
    let is_literal = |i| text(i).starts_with(|c: char| matches!(c, '\'' | '"' | '-' | '0'..='9'));
    let mut wrap = |first: usize, last: usize| {
        if !(first..=last).all(is_literal) {
            ends.push((tokens[first].range.start, true));
            ends.push((tokens[last].range.end, false));
        }
    };
    let mut end_operand = |level: &mut Level, is_compared: bool, next: bool| {
        if let Some((first, last)) = level.operand.take().filter(|_| is_compared || level.compared) {
            wrap(first, last);
        }
        level.compared = next;
    };
    let mut outer: Vec<Level> = Vec::new();
    let mut level = Level::default();
    // The `in` of a loop is not a comparison.
    let mut loop_in = name == "for";
    for i in usize::from(!name.is_empty())..tokens.len() {
        let is_attribute = i > 0 && text(i - 1) == ".";
        let of_test = i > 0 && (text(i - 1) == "is" || text(i - 1) == "not" && i > 1 && text(i - 2) == "is");
        match text(i) {
            "(" | "[" | "{" => {
                let follows_value = level.operand.is_some_and(|(_, last)| last + 1 == i)
                    && !of_test
                    && text(i - 1).ends_with(|c: char| c.is_alphanumeric() || "_)]}'\"".contains(c));
                level.operand = Some((level.operand.map_or(i, |(first, _)| first), i));
                outer.push(level);
                let subscript = (text(i) == "[" && follows_value).then_some(i + 1);
                level = Level { subscript, ..Level::default() };
            }
            ")" | "]" | "}" => {
                let subscript = level.subscript.filter(|first| *first < i);
                end_operand(&mut level, false, false);
                if let Some(first) = subscript {
                    level.operand = Some((first, i - 1));
                    end_operand(&mut level, true, false);
                }
                let Some(outside) = outer.pop() else { return Vec::new() };
                level = outside;
                level.operand = level.operand.map(|(first, _)| (first, i));
            }
            "in" if loop_in && outer.is_empty() => {
                loop_in = false;
                level = Level::default();
            }
            "==" | "!=" => end_operand(&mut level, true, true),
            "in" if !is_attribute && !of_test => end_operand(&mut level, true, true),
            "not" if !is_attribute && !of_test && text(i + 1) == "in" => {
                // The `in` that follows finds no operand before it.
                end_operand(&mut level, true, true);
            }
            separator @ ("," | ":" | "=" | "<" | ">" | "<=" | ">=") => {
                if matches!(separator, "," | ":") {
                    level.subscript = None;
                }
                end_operand(&mut level, false, false);
            }
            "and" | "or" | "not" | "if" | "else" if !is_attribute && !of_test => {
                end_operand(&mut level, false, false);
            }
            "recursive" if name == "for" && outer.is_empty() && i + 1 == tokens.len() => {}
            _ => level.operand = Some((level.operand.map_or(i, |(first, _)| first), i)),
        }
    }
    end_operand(&mut level, false, false);
    if outer.is_empty() { ends } else { Vec::new() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TagKind {
    /// `{{ … }}`
    Expression,
    /// `{% … %}`
    Block,
}

#[derive(Clone, Copy, Debug)]
struct Tag {
    kind: TagKind,
    start: usize,
}

/// A part of a tag, with the number of brackets that are open after an opening or before a closing one.
#[derive(Clone, Debug)]
struct Token {
    range: Range<usize>,
    depth: isize,
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    /// Open brackets; no tag ends before all are closed.
    brackets: isize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// Advances past the beginning of the next tag, skipping comments and raw blocks.
    fn next_tag(&mut self) -> Option<Tag> {
        loop {
            self.at += self.rest().find('{')?;
            let start = self.at;
            let kind = match self.rest().as_bytes().get(1) {
                Some(b'{') => TagKind::Expression,
                Some(b'%') => TagKind::Block,
                Some(b'#') => {
                    // The sign after `{#` belongs to it.
                    self.at += 2 + usize::from(self.rest()[2..].starts_with(['-', '+']));
                    self.at += self.rest().find("#}")? + 2;
                    continue;
                }
                _ => {
                    self.at += 1;
                    continue;
                }
            };
            self.at += 2 + usize::from(self.rest()[2..].starts_with(['-', '+']));
            match bare_tag(self.rest(), "raw") {
                Some(len) if kind == TagKind::Block => self.at += len + raw_len(&self.rest()[len..])?,
                _ => return Some(Tag { kind, start }),
            }
        }
    }

    /// The tokens of the current tag, up to its end or the end of the source.
    fn tokens(&mut self) -> Vec<Token> {
        let mut tokens = Vec::new();
        loop {
            let rest = self.rest().trim_start_matches(|c: char| c.is_ascii_whitespace());
            self.at = self.source.len() - rest.len();
            // Expressions and blocks have different end signs, but neither sign can occur in a valid tag of
            // the other kind.
            let end = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if self.brackets == 0 && (end.starts_with("%}") || end.starts_with("}}")) {
                self.at = self.source.len() - end.len() + 2;
                return tokens;
            }
            let Some(first) = rest.chars().next() else { return tokens };
            let (len, depth) = match first {
                '(' | '[' | '{' => {
                    self.brackets += 1;
                    (1, self.brackets)
                }
                ')' | ']' | '}' => {
                    self.brackets -= 1;
                    (1, self.brackets)
                }
                '\'' | '"' => (string_len(rest), self.brackets),
                c if c.is_ascii_alphanumeric() || c == '_' => {
                    let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    (word.unwrap_or(rest.len()), self.brackets)
                }
                _ if ["//", "**", "==", "!=", ">=", "<="].iter().any(|op| rest.starts_with(op)) => {
                    (2, self.brackets)
                }
                c => (c.len_utf8(), self.brackets),
            };
            tokens.push(Token { range: self.at..self.at + len, depth });
            self.at += len;
        }
    }
}

/// Length of the string that `text` begins with, quotes included.
fn string_len(text: &str) -> usize {
    let mut chars = text.char_indices();
    let Some((_, quote)) = chars.next() else { return 0 };
    while let Some((i, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return i + 1;
        }
    }
    text.len()
}

/// Length of the rest of a tag that consists only of a name, after its beginning.
fn bare_tag(text: &str, name: &str) -> Option<usize> {
    let space = |text: &'_ str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
    let mut at = space(text);
    at += text[at..].strip_prefix(name).map(|_| name.len())?;
    at += space(&text[at..]);
    at += usize::from(text[at..].starts_with(['-', '+']));
    text[at..].starts_with("%}").then_some(at + 2)
}

/// Length of the content of a raw block and its end tag.
fn raw_len(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text[at..].find("{%")? + 2;
        let sign = usize::from(text[at..].starts_with(['-', '+']));
        if let Some(len) = bare_tag(&text[at + sign..], "endraw") {
            return Some(at + sign + len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_checked() {
        for (source, want) in [
            ("{% set a = 1 %}", "{% set a = (1)|exsa_variable %}"),
            ("{%- set a=b|f(c=1) -%}", "{%- set a=(b|f(c=1))|exsa_variable -%}"),
            ("{% set n.a = [1, 2] %}", "{% set n.a = ([1, 2])|exsa_attribute %}"),
            ("{% set a, b = 1, 2 %}", "{% set a, b = (1, 2)|exsa_variable %}"),
            ("{% set a = b + c %}", "{% set a = (b + c)|exsa_variable %}"),
            ("{% set a = '%}' ~ \"}}\\\"\" %}x", "{% set a = ('%}' ~ \"}}\\\"\")|exsa_variable %}x"),
            ("{% set a = {'b': {'c': 1}} %}", "{% set a = ({'b': {'c': 1}})|exsa_variable %}"),
            ("{% set a %}b = 1{% endset %}", "{% set a %}b = 1{% endset %}"),
            ("{% set a | f(b=1) %}", "{% set a | f(b=1) %}"),
            ("{% set n.a = [1]) or (2 %}", "{% set n.a = [1]) or (2 %}"),
            ("{% set a = %}", "{% set a = %}"),
            ("{# {% set a = 1 %} #}{{ 'set a = 1' }}", "{# {% set a = 1 %} #}{{ 'set a = 1' }}"),
            ("{%raw%}{% set a = 1 %}{%- endraw %}", "{%raw%}{% set a = 1 %}{%- endraw %}"),
            ("{#-#}{% set a = 1 %}", "{#-#}{% set a = (1)|exsa_variable %}"),
            ("{ { % set a = 1 %} {%", "{ { % set a = 1 %} {%"),
        ] {
            assert_eq!(prepare(source).unwrap(), want);
        }
    }

    #[test]
    fn comparisons_and_lookups_are_of_text_without_markers() {
        for (source, want) in [
            ("{{ a == b }}", "{{ (a)|P == (b)|P }}"),
            ("{{- a.b|f(1)!='c' -}}", "{{- (a.b|f(1))|P!='c' -}}"),
            ("{% if not a in b and c %}", "{% if not (a)|P in (b)|P and c %}"),
            ("{% elif a not in b or d %}", "{% elif (a)|P not in (b)|P or d %}"),
            ("{% for a in b if a.c == 1 %}", "{% for a in b if (a.c)|P == 1 %}"),
            ("{% for a, b in c recursive %}", "{% for a, b in c recursive %}"),
            ("{% for a in b if c == d recursive %}", "{% for a in b if (c)|P == (d)|P recursive %}"),
            ("{% set a = b == c %}", "{% set a = ((b)|P == (c)|P)|exsa_variable %}"),
            ("{{ (a == b) == c }}", "{{ (((a)|P == (b)|P))|P == (c)|P }}"),
            ("{{ a == b == c }}", "{{ (a)|P == (b)|P == (c)|P }}"),
            (
                "{{ f(a, b=c == d)[-1:] + 'x' != y if z else w }}",
                "{{ (f(a, b=(c)|P == (d)|P)[-1:] + 'x')|P != (y)|P if z else w }}",
            ),
            ("{{ a is not none == b }}", "{{ (a is not none)|P == (b)|P }}"),
            ("{{ a is in b and a is not in b }}", "{{ a is in b and a is not in b }}"),
            ("{{ {'a': b == c, 'd': [e in f]} }}", "{{ {'a': (b)|P == (c)|P, 'd': [(e)|P in (f)|P]} }}"),
            ("{{ a.in == b }}", "{{ (a.in)|P == (b)|P }}"),
            ("{{ a < b == c }}", "{{ a < (b)|P == (c)|P }}"),
            ("{{ a['b'][0][-1][c][:d] }}", "{{ a['b'][0][-1][(c)|P][:d] }}"),
            ("{{ a[b if c == d else e] + [f] }}", "{{ a[(b if (c)|P == (d)|P else e)|P] + [f] }}"),
            ("{{ f(a)[b] in 'c'[d] }}", "{{ (f(a)[(b)|P])|P in ('c'[(d)|P])|P }}"),
            ("{{ == }}", "{{ == }}"),
            ("{{ a == b) }}", "{{ a == b) }}"),
        ] {
            assert_eq!(prepare(source).unwrap(), want.replace("|P", "|exsa_plain"), "{source}");
        }
    }

    #[test]
    fn generation_blocks_always_hold() {
        assert_eq!(
            prepare("{%- generation -%}a{% endgeneration %}{% set generation = 1 %}{{ generation }}")
                .unwrap(),
            "{%- if true -%}a{% endif %}{% set generation = (1)|exsa_variable %}{{ generation }}"
        );
    }

    #[test]
    fn limits_are_kept() {
        let over = |source: String| prepare(&format!("\n{source}")).unwrap_err();
        assert_eq!(over(format!("{{{{ {} }}}}", "-".repeat(513))), "line 2: more than 512 parts in one tag");
        assert_eq!(over(format!("{{{{ {}", "not ".repeat(513))), "line 2: more than 512 parts in one tag");
        assert!(prepare(&format!("{{{{ {} }}}}", "-".repeat(512))).is_ok());
        assert_eq!(
            over(format!("{{% if {} %}}", "[".repeat(13))),
            "line 2: more than 12 brackets within each other"
        );
        assert!(prepare(&"{% elif a %}".repeat(256)).is_ok());
        assert_eq!(over("{% elif a %}".repeat(257)), "line 2: more than 256 elif tags");
        assert_eq!(over("{% call a() %}".repeat(65)), "line 2: more than 64 macro and call tags");
        assert_eq!(over("é".repeat(65_001)), "line 2: more than 65000 characters in a line");
        assert_eq!(over("\n".repeat(65_000)), "more than 65000 lines");
        assert!(prepare(&"é".repeat(65_000)).is_ok());
    }

    #[test]
    fn any_end_is_no_harm() {
        let source = "a{% set n.a = ['x', \"y\\\"\"] %}{{ {'a': (1)} }}{% raw %}{{{% endraw %}{# c #}{%- generation +%}\r\nü";
        for (end, _) in source.char_indices() {
            let _ = prepare(&source[..end]);
            let _ = prepare(&source[end..]);
        }
    }
}
