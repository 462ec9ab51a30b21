//! Rewrites errors of the TOML reader so that they state the allowed values.

use super::suggest::nearest;

/// A syntax error.
pub(super) fn syntax(message: &str) -> String {
    match message.split_once(", expected ") {
        Some((problem, expected)) => format!("{problem}; expected is {expected}"),
        None => message.to_owned(),
    }
}

/// An invalid value; `setting` is its path.
pub(super) fn value(setting: &str, message: &str) -> String {
    if let Some((name, allowed)) = unknown(message, "unknown field `") {
        let table = setting.rsplit_once('.').map_or("", |(table, _)| table);
        let kind = if table.is_empty() { "section" } else { "key" };
        let place = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
        return format!("there is no {kind} '{name}'{place}{}", alternatives(name, &allowed));
    }
    if let Some((name, allowed)) = unknown(message, "unknown variant `") {
        return format!("'{name}' is not allowed{}", alternatives(name, &allowed));
    }
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return format!("the key '{name}' is missing");
    }
    if message.starts_with("invalid IP address") {
        return "this is no IP address; allowed are addresses such as \"127.0.0.1\", \"0.0.0.0\" or \"::1\""
            .into();
    }
    if message.starts_with("invalid socket address") {
        return "this is no address with a port; allowed are \"127.0.0.1:8080\" or \"[::1]:8080\"".into();
    }
    for kind in ["invalid type: ", "invalid value: "] {
        let parts = message.strip_prefix(kind).and_then(|rest| rest.rsplit_once(", expected "));
        if let Some((found, expected)) = parts {
            return format!("{} is not allowed; allowed is {}", found.replace('`', ""), type_name(expected));
        }
    }
    message.to_owned()
}

/// Extracts the name and the allowed names from serde's ``unknown field `a`, expected one of `b`, `c` ``.
fn unknown<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (name, rest) = message.strip_prefix(prefix)?.split_once('`')?;
    let allowed = rest.split('`').skip(1).step_by(2).collect();
    Some((name, allowed))
}

fn alternatives(name: &str, allowed: &[&str]) -> String {
    let meant = nearest(name, allowed.iter().copied());
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"));
    let separator = if meant.is_empty() { ";" } else { "" };
    match allowed {
        [] => format!("{meant}{separator} nothing is allowed here"),
        allowed => format!("{meant}{separator} allowed are {}", allowed.join(", ")),
    }
}

fn type_name(expected: &str) -> &str {
    match expected {
        "u8" => "an integer from 0 to 255",
        "u16" => "an integer from 0 to 65535",
        "u32" => "an integer from 0 to 4294967295",
        "u64" | "usize" => "an integer, 0 or more",
        "a nonzero usize" | "a nonzero u64" => "an integer, 1 or more",
        "i64" => "an integer",
        "f32" | "f64" => "a number",
        "a string" => "a text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list in brackets",
        "path string" => "a path in quotes",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}
