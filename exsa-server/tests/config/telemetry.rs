//! The section `[telemetry]`: what it refuses, and where.

use exsa_server::config::{Config, ConfigSource};

/// Problems of a file with this text, as they are printed.
fn problems(name: &str, text: &str) -> String {
    let file = std::env::temp_dir().join(format!("exsa-telemetry-{}-{name}.toml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let loaded = ConfigSource::new(Some(file.clone())).load();
    std::fs::remove_file(&file).unwrap();
    let printed = loaded.err().map_or_else(String::new, |error| error.to_string());
    printed.replace(&file.display().to_string(), "exsa.toml")
}

#[cfg(not(feature = "otel"))]
#[test]
fn a_build_without_traces_refuses_their_settings() {
    assert_eq!(
        problems("off", "[telemetry]\nprobes = true\nendpoint = \"http://127.0.0.1:4318\""),
        "exsa.toml:3:12: telemetry.endpoint: this exsa-server was built without OpenTelemetry; build it with \
         --features otel\n  |\n3 | endpoint = \"http://127.0.0.1:4318\"\n  |            ^^^^^^^^^^^^^^^^^^^^^^^"
    );
    assert_eq!(problems("default", "[telemetry]\nprobes = false"), "");
}

#[cfg(feature = "otel")]
#[test]
fn wrong_settings_are_described_where_they_are_wrong() {
    let cases = [
        ("endpoint = \"localhost:4318\"", "2:12: telemetry.endpoint: the URL has no scheme"),
        ("endpoint = \"http://\"", "2:12: telemetry.endpoint: this is no URL"),
        ("endpoint = \"http://a:b@c\"", "2:12: telemetry.endpoint: the URL has a user or password"),
        ("endpoint = \"http://c/?x=1\"", "2:12: telemetry.endpoint: the URL has a query"),
        ("protocol = \"grpc\"", "2:12: telemetry.protocol: 'grpc' is not allowed; allowed are http/protobuf"),
        ("sample_ratio = 1.5", "2:16: telemetry.sample_ratio: allowed is a number from 0 to 1"),
        ("sample_ratio = nan", "2:16: telemetry.sample_ratio: allowed is a number from 0 to 1"),
        ("timeout = \"0s\"", "2:11: telemetry.timeout: allowed is more than \"0s\""),
        ("timeout = 5", "2:11: telemetry.timeout: integer 5 is not allowed; allowed is a duration in quotes"),
        ("queue_max = 0", "2:13: telemetry.queue_max: allowed is 1 to 1048576"),
        (
            "queue_max = 8\nbatch_max = 9",
            "3:13: telemetry.batch_max: allowed is 1 to 8, the size of the queue",
        ),
        ("headers_file = \"/nowhere\"", "2:16: telemetry.headers_file: /nowhere: the file cannot be read"),
        (
            "headers_env = \"EXSA_UNSET\"",
            "2:15: telemetry.headers_env: the environment variable EXSA_UNSET is",
        ),
        (
            "headers_env = \"A\"\nheaders_file = \"b\"",
            "2:15: telemetry.headers_env: 'headers_file' is set too",
        ),
        ("endpont = \"\"", "2:1: telemetry.endpont: there is no key 'endpont' in [telemetry]; did you mean"),
        ("resource = { \"\" = \"a\" }", "telemetry.resource: an attribute needs a name"),
    ];
    for (line, expected) in cases {
        let printed = problems("wrong", &format!("[telemetry]\n{line}\n"));
        assert!(printed.contains(expected), "{line}:\n{printed}");
    }
    assert_eq!(problems("right", "[telemetry]\nendpoint = \"http://127.0.0.1:4318\"\ninterval = \"1s\""), "");
    let https = problems("https", "[telemetry]\nendpoint = \"https://collector.example\"");
    assert_eq!(
        https.contains("2:12: telemetry.endpoint: https needs TLS"),
        cfg!(not(feature = "tls")),
        "{https}"
    );
}

#[cfg(feature = "otel")]
#[test]
fn no_problem_shows_a_header() {
    let file = std::env::temp_dir().join(format!("exsa-bad-headers-{}", std::process::id()));
    for (text, line) in [("# comment\n\nsecret-token", 3), ("a: b\nx y: secret-token", 2)] {
        std::fs::write(&file, text).unwrap();
        let printed = problems("headers", &format!("[telemetry]\nheaders_file = '{}'", file.display()));
        assert!(printed.contains(&format!("line {line} is no header")), "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn settings_survive_a_round_trip() {
    let config = Config::parse("[telemetry]\ntimeout = \"1m 30s\"\nresource = { a = \"b\" }").unwrap();
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["telemetry"]["timeout"], "1m 30s");
    assert_eq!(serde_json::from_value::<Config>(json).unwrap(), config);
}
