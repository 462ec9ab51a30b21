//! The commented example has every setting, with its default.

use exsa_server::config::{Config, EXAMPLE};
use serde_json::Value;

#[test]
fn the_example_is_the_default() {
    assert_eq!(Config::parse(EXAMPLE).unwrap(), Config::default());
    assert_eq!(Config::parse("").unwrap(), Config::default());
}

/// The example with the settings that are commented out.
fn uncommented() -> String {
    let setting = |line: &str| {
        let rest = line.strip_prefix("# ")?;
        let (key, value) = rest.split_once(" = ")?;
        let is_key = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        (is_key && !value.is_empty()).then(|| rest.to_owned())
    };
    let lines = EXAMPLE.lines().map(|line| setting(line).unwrap_or_else(|| line.to_owned()));
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
