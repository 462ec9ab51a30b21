//! Differences between two configurations.

use crate::config::Config;
use serde_json::Value;

/// Returns the differing settings, such as `listen.port`, in alphabetical order. Lists are compared as a
/// whole.
pub(super) fn between(old: &Config, new: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    compare(&json(old), &json(new), "", &mut paths);
    // The order of maps depends on features of other crates.
    paths.sort();
    paths
}

/// Sets `current` to `new`, except for `kept` settings.
pub(super) fn keep(current: &mut Config, new: &Config, kept: &[String]) {
    let old = json(current);
    let mut merged = json(new);
    for path in kept {
        let pointer = format!("/{}", path.replace('.', "/"));
        if let (Some(from), Some(to)) = (old.pointer(&pointer), merged.pointer_mut(&pointer)) {
            *to = from.clone();
        }
    }
    *current = serde_json::from_value(merged).unwrap_or_else(|_| new.clone());
}

fn json(config: &Config) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

fn compare(old: &Value, new: &Value, path: &str, paths: &mut Vec<String>) {
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        let missing = new.keys().filter(|name| !old.contains_key(*name));
        for name in old.keys().chain(missing) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let value = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
            compare(&value(old), &value(new), &path, paths);
        }
    } else if old != new {
        paths.push(path.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_need_a_restart_differ_until_then() {
        let mut current = Config::default();
        let mut new = Config::default();
        new.listen.port = 1;
        new.limits.n_max = 3;
        new.tls.cert = Some("a".into());
        assert_eq!(between(&current, &new), ["limits.n_max", "listen.port", "tls.cert"]);
        keep(&mut current, &new, &["listen.port".into(), "tls.cert".into()]);
        assert_eq!((current.limits.n_max, current.listen.port), (3, 8080));
        assert_eq!(between(&current, &new), ["listen.port", "tls.cert"]);
        assert_eq!(between(&current, &current), Vec::<String>::new());
    }
}
