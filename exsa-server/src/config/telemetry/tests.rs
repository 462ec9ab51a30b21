//! The environment beside the file.

use super::environment::Sampling;
use super::{Settings, TelemetryConfig};
use std::time::Duration;

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/");

fn resolve(
    config: &TelemetryConfig,
    variables: &[(&str, &str)],
) -> Result<Option<Settings>, Vec<(&'static str, String)>> {
    let read =
        |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
    Settings::resolve(config, &read)
}

#[test]
fn variables_stand_in_for_the_file() {
    let settings = resolve(
        &TelemetryConfig::default(),
        &[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20x,b=c"),
            ("OTEL_SERVICE_NAME", "mine"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,region=eu"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ],
    )
    .unwrap()
    .unwrap();
    assert_eq!(settings.url, "http://collector:4318/base/v1/traces");
    let headers: Vec<_> =
        settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(headers, [("authorization", &b"Bearer x"[..]), ("b", b"c")]);
    assert!(settings.headers.iter().all(|(_, value)| value.is_sensitive()));
    assert_eq!((&*settings.service_name, &*settings.resource["region"]), ("mine", "eu"));
    assert_eq!(settings.sampling, Sampling { ratio: 0.25, parent_based: false });
    assert_eq!(settings.timeout, Duration::from_millis(1500));
    assert_eq!(settings.interval, Duration::from_millis(250));
    assert_eq!((settings.queue_max, settings.batch_max), (100, 100));
}

#[test]
fn the_file_goes_before_variables() {
    let mut config = TelemetryConfig::new("http://127.0.0.1:1").sample_ratio(0.5).queue(10, 5);
    config.service_name = Some("file".into());
    let config = config.resource("region", "us");
    let settings = resolve(
        &config,
        &[
            ENDPOINT,
            ("OTEL_SERVICE_NAME", "variable"),
            ("OTEL_RESOURCE_ATTRIBUTES", "region=eu,zone=a"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ],
    )
    .unwrap()
    .unwrap();
    assert_eq!((&*settings.url, settings.is_loopback), ("http://127.0.0.1:1/v1/traces", true));
    assert_eq!((&*settings.service_name, &*settings.resource["region"]), ("file", "us"));
    assert_eq!(settings.resource["zone"], "a");
    assert_eq!(settings.sampling, Sampling { ratio: 0.5, parent_based: true });
    assert_eq!((settings.queue_max, settings.batch_max), (10, 5));
}

#[test]
fn the_variables_of_the_signal_go_before_those_of_all() {
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/own/path");
    let settings = resolve(&TelemetryConfig::default(), &[ENDPOINT, traces]).unwrap().unwrap();
    assert_eq!(settings.url, "http://traces:1/own/path");
}

#[test]
fn traces_are_off_without_an_endpoint_and_when_switched_off() {
    let default = TelemetryConfig::default();
    let foreign = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    assert!(resolve(&default, &[foreign]).unwrap().is_none(), "variables for other programs do no harm");
    for switch in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert!(resolve(&TelemetryConfig::new("http://a"), &[switch, foreign]).unwrap().is_none());
    }
    assert!(resolve(&default.sample_ratio(2.0), &[]).is_err(), "the file is checked all the same");
}

#[test]
fn unusable_variables_are_named_without_secrets() {
    for (name, value, problem) in [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; allowed is http/protobuf",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret", "OTEL_EXPORTER_OTLP_HEADERS: pair 1 has no '='"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", "OTEL_EXPORTER_OTLP_HEADERS: pair 1 is no header"),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "5s",
            "OTEL_EXPORTER_OTLP_TIMEOUT is '5s'; allowed is a time in milliseconds",
        ),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "0",
            "OTEL_BSP_MAX_QUEUE_SIZE is '0'; allowed is an integer of at least 1",
        ),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9999", "allowed is 1 to 2048"),
    ] {
        let problems = resolve(&TelemetryConfig::default(), &[ENDPOINT, (name, value)]).unwrap_err();
        let [(_, found)] = &*problems else { panic!("{problems:?}") };
        assert!(found.starts_with(problem) && !found.contains("secret"), "{found}");
    }
}
