//! Effective settings: from the file, the environment, and the defaults.

use super::environment::{self, Read, Sampling};
use super::{TelemetryConfig, headers};
use crate::config::DURATION_MAX;
use axum::http::{HeaderName, HeaderValue, Uri};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Maximum of `queue_max`: a span has about a kilobyte.
const QUEUE_MAX: usize = 1 << 20;

/// A setting of the section, and its problem.
type Invalid = (&'static str, String);

/// Settings of an enabled export.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The URL to which batches are sent.
    pub(crate) url: String,
    pub(crate) is_loopback: bool,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "certificates are those of TLS"))]
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) service_name: String,
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) sampling: Sampling,
    pub(crate) timeout: Duration,
    pub(crate) queue_max: usize,
    pub(crate) batch_max: usize,
    pub(crate) interval: Duration,
    pub(crate) flush_timeout: Duration,
    pub(crate) probes: bool,
    pub(crate) caller_id: bool,
}

impl Settings {
    /// Returns the settings of the process; `None` if traces are off.
    ///
    /// # Errors
    ///
    /// All problems.
    pub(crate) fn of_process(config: &TelemetryConfig) -> Result<Option<Self>, Vec<Invalid>> {
        Self::resolve(config, &environment::process)
    }

    /// Returns the settings with the variables known to `read`. Variables only count while traces are on, so
    /// those meant for other programs do no harm.
    pub(super) fn resolve(config: &TelemetryConfig, read: Read<'_>) -> Result<Option<Self>, Vec<Invalid>> {
        let url = match environment::switched_off(read) {
            true => None,
            false => url(config, read).transpose(),
        };
        let is_on = url.is_some();
        let unset = |_: &str| None;
        let read: Read<'_> = if is_on { read } else { &unset };
        let mut problems = Vec::new();
        let url = check(url.unwrap_or_else(|| Ok(String::new())), &mut problems).unwrap_or_default();
        protocol(config, read).unwrap_or_else(|problem| problems.push(problem));
        let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned));
        let headers = check(headers::read(config, read), &mut problems);
        let ca_file = check(ca_file(config, read), &mut problems).flatten();
        let sampling = check(sampling(config, read), &mut problems);
        let resource = check(resource(config, read), &mut problems);
        let times = check(times(config, read), &mut problems);
        let sizes = check(sizes(config, read), &mut problems);
        let (Some(headers), Some(sampling), Some(mut resource), Some(times), Some(sizes), []) =
            (headers, sampling, resource, times, sizes, &*problems)
        else {
            return Err(problems);
        };
        let of_variables = environment::first(read, &["OTEL_SERVICE_NAME"]).map(|(_, name)| name);
        let of_resource = resource.remove("service.name");
        let service_name = config.service_name.clone().or(of_variables).or(of_resource);
        let settings = Self {
            is_loopback: host.is_some_and(|host| is_loopback(&host)),
            url,
            headers,
            ca_file,
            service_name: service_name.unwrap_or_else(|| "exsa-server".into()),
            resource,
            sampling,
            timeout: times.0,
            interval: times.1,
            queue_max: sizes.0,
            batch_max: sizes.1,
            flush_timeout: config.flush_timeout,
            probes: config.probes,
            caller_id: config.caller_id,
        };
        Ok(is_on.then_some(settings))
    }
}

/// Returns the value, or records its problem.
fn check<T>(value: Result<T, Invalid>, problems: &mut Vec<Invalid>) -> Option<T> {
    value.map_err(|problem| problems.push(problem)).ok()
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns the export URL from the file or the environment.
fn url(config: &TelemetryConfig, read: Read<'_>) -> Result<Option<String>, Invalid> {
    let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let (source, base, path) = match &config.endpoint {
        Some(endpoint) => (String::new(), endpoint.clone(), "/v1/traces"),
        None => match environment::first(read, &[traces, "OTEL_EXPORTER_OTLP_ENDPOINT"]) {
            // The signal-specific variable has the complete URL.
            Some((name, url)) if name == traces => (format!("{name}: "), url, ""),
            Some((name, url)) => (format!("{name}: "), url, "/v1/traces"),
            None => return Ok(None),
        },
    };
    let base = base.trim();
    let error = |problem: &str| Err(("endpoint", format!("{source}{problem}")));
    let allowed = "allowed are http:// or https://, a host, a port and a path: \"http://127.0.0.1:4318\"";
    let Ok(uri) = base.parse::<Uri>() else { return error(&format!("this is no URL; {allowed}")) };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") if cfg!(feature = "tls") => {}
        Some("https") => {
            return error(
                "https needs TLS, without which this exsa-server was built; build it with --features tls",
            );
        }
        _ => return error(&format!("the URL has no scheme that is known; {allowed}")),
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return error("the URL has a user or password, which logs would show; give it as a header");
    }
    if uri.query().is_some() {
        return error(&format!("the URL has a query; {allowed}"));
    }
    Ok(Some(format!("{}{path}", base.trim_end_matches('/'))))
}

/// Checks the protocol from the environment; that of the file was checked when it was read.
fn protocol(config: &TelemetryConfig, read: Read<'_>) -> Result<(), Invalid> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    match environment::first(read, &names) {
        Some((name, protocol)) if config.protocol.is_none() && protocol.trim() != "http/protobuf" => {
            Err(("protocol", format!("{name} is '{protocol}'; allowed is http/protobuf")))
        }
        _ => Ok(()),
    }
}

fn ca_file(config: &TelemetryConfig, read: Read<'_>) -> Result<Option<PathBuf>, Invalid> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
    let named = || environment::first(read, &names).map(|(_, path)| PathBuf::from(path));
    let Some(path) = config.ca_file.clone().or_else(named) else { return Ok(None) };
    #[cfg(feature = "tls")]
    crate::access::read_roots(&path).map_err(|problem| ("ca_file", problem))?;
    if cfg!(not(feature = "tls")) {
        let problem = "this exsa-server was built without TLS; build it with --features tls";
        return Err(("ca_file", problem.into()));
    }
    Ok(Some(path))
}

fn sampling(config: &TelemetryConfig, read: Read<'_>) -> Result<Sampling, Invalid> {
    match config.sample_ratio {
        Some(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Sampling { ratio, ..Sampling::default() }),
        Some(_) => Err(("sample_ratio", "allowed is a number from 0 to 1".into())),
        None => environment::sampling(read).map_err(|problem| ("sample_ratio", problem)),
    }
}

/// Returns the attributes from the environment and the file; the file overrides.
fn resource(config: &TelemetryConfig, read: Read<'_>) -> Result<BTreeMap<String, String>, Invalid> {
    let mut attributes = BTreeMap::new();
    if let Some((name, list)) = environment::first(read, &["OTEL_RESOURCE_ATTRIBUTES"]) {
        let pairs =
            environment::pairs(&list).map_err(|problem| ("resource", format!("{name}: {problem}")))?;
        attributes.extend(pairs);
    }
    attributes.extend(config.resource.clone());
    if attributes.keys().any(String::is_empty) {
        return Err(("resource", "an attribute needs a name".into()));
    }
    Ok(attributes)
}

/// Timeout and interval.
fn times(config: &TelemetryConfig, read: Read<'_>) -> Result<(Duration, Duration), Invalid> {
    let chosen = |setting, of_file: Option<Duration>, names: &[&str], default| {
        let time = match of_file {
            Some(time) => time,
            None => environment::milliseconds(read, names)
                .map_err(|problem| (setting, problem))?
                .unwrap_or(Duration::from_secs(default)),
        };
        match time.is_zero() || time > DURATION_MAX {
            true => Err((setting, "allowed is more than \"0s\" and at most \"365days\"".into())),
            false => Ok(time),
        }
    };
    if config.flush_timeout > DURATION_MAX {
        return Err(("flush_timeout", "allowed is at most \"365days\"".into()));
    }
    let names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let timeout = chosen("timeout", config.timeout, &names, 10)?;
    Ok((timeout, chosen("interval", config.interval, &["OTEL_BSP_SCHEDULE_DELAY"], 5)?))
}

/// Sizes of the queue and of a batch.
fn sizes(config: &TelemetryConfig, read: Read<'_>) -> Result<(usize, usize), Invalid> {
    let chosen = |setting, of_file: Option<usize>, name, default| match of_file {
        Some(count) => Ok(count),
        None => environment::count(read, &[name])
            .map(|count| count.unwrap_or(default))
            .map_err(|problem| (setting, problem)),
    };
    let queue = chosen("queue_max", config.queue_max, "OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
    if !(1..=QUEUE_MAX).contains(&queue) {
        return Err(("queue_max", format!("allowed is 1 to {QUEUE_MAX}")));
    }
    let batch = chosen("batch_max", config.batch_max, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512.min(queue))?;
    if !(1..=queue).contains(&batch) {
        return Err(("batch_max", format!("allowed is 1 to {queue}, the size of the queue")));
    }
    Ok((queue, batch))
}
