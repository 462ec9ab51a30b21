//! The commented example has every setting, with its default.

use exsa_server::config::{Config, EXAMPLE};
use serde_json::Value;

#[test]
fn the_example_is_the_default() {
    assert_eq!(Config::parse(EXAMPLE).unwrap(), Config::default());
    assert_eq!(Config::parse("").unwrap(), Config::default());
}

/// The example with the settings and sections that are commented out.
fn uncommented() -> String {
    let is_setting = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_key || line.starts_with('[')
    };
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_setting(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_has_every_setting() {
    let config = serde_json::to_value(Config::parse(&uncommented()).unwrap()).unwrap();
    let Value::Object(sections) = config else { panic!("no sections") };
    for (section, settings) in sections {
        assert!(EXAMPLE.contains(&format!("\n[{section}]\n")), "{section}");
        let Value::Object(settings) = settings else { panic!("{section}") };
        for (name, value) in settings {
            assert_ne!(value, Value::Null, "{section}.{name} is missing in the example");
        }
    }
}

#[test]
fn comments_keep_the_width_of_the_code() {
    let longest = EXAMPLE.lines().map(str::len).max();
    assert!(longest <= Some(118), "{longest:?}");
}
