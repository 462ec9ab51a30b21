//! Standard environment variables of OpenTelemetry, which apply to settings that the file omits.

use std::time::Duration;

/// Reads an environment variable.
pub(super) type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of the process.
pub(super) fn process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns the first variable that is set, with its name. Empty values count as unset, as in the
/// OpenTelemetry specification.
pub(super) fn first<'n>(read: Read<'_>, names: &[&'n str]) -> Option<(&'n str, String)> {
    names.iter().find_map(|name| Some((*name, read(name).filter(|value| !value.trim().is_empty())?)))
}

/// Reads an integer of at least 1.
pub(super) fn count(read: Read<'_>, names: &[&str]) -> Result<Option<usize>, String> {
    let Some((name, value)) = first(read, names) else { return Ok(None) };
    match value.trim().parse() {
        Ok(count) if count > 0 => Ok(Some(count)),
        _ => Err(format!("{name} is '{value}'; allowed is an integer of at least 1")),
    }
}

/// Reads a time in milliseconds.
pub(super) fn milliseconds(read: Read<'_>, names: &[&str]) -> Result<Option<Duration>, String> {
    let Some((name, value)) = first(read, names) else { return Ok(None) };
    let time = value.trim().parse().map(Duration::from_millis);
    time.map(Some).map_err(|_| format!("{name} is '{value}'; allowed is a time in milliseconds"))
}

/// Returns whether variables disable traces, or name an exporter other than OTLP.
pub(super) fn switched_off(read: Read<'_>) -> bool {
    let is = |name, value: &str| read(name).is_some_and(|set| set.trim().eq_ignore_ascii_case(value));
    let exporters = read("OTEL_TRACES_EXPORTER").filter(|value| !value.trim().is_empty());
    is("OTEL_SDK_DISABLED", "true")
        || exporters.is_some_and(|list| list.split(',').all(|exporter| exporter.trim() != "otlp"))
}

/// Sampling rule: the share of traces, and whether the decision of a parent overrides it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampling {
    pub(crate) ratio: f64,
    pub(crate) parent_based: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { ratio: 1.0, parent_based: true }
    }
}

/// Reads `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.
pub(super) fn sampling(read: Read<'_>) -> Result<Sampling, String> {
    let Some((name, sampler)) = first(read, &["OTEL_TRACES_SAMPLER"]) else { return Ok(Sampling::default()) };
    let (parent_based, root) = match sampler.trim().strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, sampler.trim()),
    };
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio(read)?,
        _ => {
            return Err(format!(
                "{name} is '{sampler}'; allowed are always_on, always_off and traceidratio, also with parentbased_ \
                 before them"
            ));
        }
    };
    Ok(Sampling { ratio, parent_based })
}

fn ratio(read: Read<'_>) -> Result<f64, String> {
    let Some((name, value)) = first(read, &["OTEL_TRACES_SAMPLER_ARG"]) else { return Ok(1.0) };
    let ratio = value.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("{name} is '{value}'; allowed is a number from 0 to 1"))
}

/// Parses a list `name=value,name=value` with percent-encoded values. The error states the number of the
/// invalid pair, never its value, which may be secret.
pub(super) fn pairs(list: &str) -> Result<Vec<(String, String)>, String> {
    let parts = list.split(',').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty());
    parts
        .map(|(i, part)| {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("pair {} has no '='", i + 1))?;
            let value = percent_decoded(value.trim());
            let value = value.ok_or_else(|| format!("the value of pair {} is not percent-encoded", i + 1))?;
            Ok((name.trim().to_owned(), value))
        })
        .collect()
}

/// Percent-decodes `value`; `None` if an escape is incomplete or the text is not UTF-8.
fn percent_decoded(value: &str) -> Option<String> {
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + use<'a> {
        |name| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn samplers_have_a_ratio_and_may_follow_the_parent() {
        for (sampler, arg, expected) in [
            ("always_on", "", Some((1.0, false))),
            ("parentbased_always_off", "", Some((0.0, true))),
            ("traceidratio", "0.25", Some((0.25, false))),
            ("parentbased_traceidratio", "", Some((1.0, true))),
            ("", "0.5", Some((1.0, true))),
            ("parentbased_traceidratio", "1.5", None),
            ("parentbased_traceidratio", "NaN", None),
            ("jaeger_remote", "", None),
        ] {
            let variables = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", arg)];
            let read = sampling(&set(&variables)).ok();
            let expected = expected.map(|(ratio, parent_based)| Sampling { ratio, parent_based });
            assert_eq!(read, expected, "{sampler} {arg}");
        }
    }

    #[test]
    fn pairs_are_percent_encoded() {
        let read = pairs("a=b, c = d%20e%2C ,,f=").unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(read, [("a", "b"), ("c", "d e,"), ("f", "")]);
        for (list, problem) in [
            ("a=b,secret", "pair 2 has no '='"),
            ("a=secret%2", "the value of pair 1 is not percent-encoded"),
            ("a=secret%ff", "the value of pair 1 is not percent-encoded"),
        ] {
            assert_eq!(pairs(list).unwrap_err(), problem);
        }
    }

    #[test]
    fn empty_variables_are_unset() {
        assert_eq!(count(&set(&[("A", " "), ("B", "7")]), &["A", "B"]), Ok(Some(7)));
        for value in ["0", "-1", "x", "99999999999999999999"] {
            assert!(count(&set(&[("A", value)]), &["A"]).is_err(), "{value}");
        }
        assert!(!switched_off(&set(&[("OTEL_TRACES_EXPORTER", "")])));
        assert!(!switched_off(&set(&[("OTEL_TRACES_EXPORTER", "console,otlp")])));
        assert!(switched_off(&set(&[("OTEL_TRACES_EXPORTER", "none")])));
        assert!(switched_off(&set(&[("OTEL_SDK_DISABLED", "True")])));
    }
}
