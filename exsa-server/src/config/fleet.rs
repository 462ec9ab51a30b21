//! Section `[fleet]`: the server as one replica behind a router.

use super::{Problems, units};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// Maximum of `buffer_steps`.
const STEPS_MAX: usize = 1 << 20;

/// The section `[fleet]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FleetConfig {
    /// Prefix cache events; off by default.
    pub kv_events: Option<KvEventsConfig>,
}

/// Prefix cache events over ZeroMQ, in vLLM's format. They contain the tokens of prompts and answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct KvEventsConfig {
    /// Address of the PUB socket; `tcp://127.0.0.1:5557` by default.
    pub bind: String,
    /// Address of the ROUTER socket that replays past events; none by default.
    pub replay: Option<String>,
    /// Topic of a model's events, with `{address}` for the server's first HTTP address and `{model}` for the
    /// model name; `kv@{address}@{model}` by default.
    pub topic: String,
    /// Maximum messages buffered for replay; 10,000 by default.
    pub buffer_steps: usize,
    /// Maximum bytes of the buffered messages; 64 MiB by default.
    #[serde(with = "units::size")]
    pub buffer_bytes: u64,
    /// Whether addresses beyond loopback are allowed although readers are not authenticated.
    pub insecure_no_auth: bool,
}

impl Default for KvEventsConfig {
    fn default() -> Self {
        Self {
            bind: "tcp://127.0.0.1:5557".into(),
            replay: None,
            topic: "kv@{address}@{model}".into(),
            buffer_steps: 10_000,
            buffer_bytes: 64 << 20,
            insecure_no_auth: false,
        }
    }
}

impl KvEventsConfig {
    /// Creates a configuration with the address `bind`, such as `tcp://127.0.0.1:5557`.
    pub fn new(bind: impl Into<String>) -> Self {
        Self { bind: bind.into(), ..Self::default() }
    }

    /// Sets the replay address.
    #[must_use]
    pub fn replay(mut self, address: impl Into<String>) -> Self {
        self.replay = Some(address.into());
        self
    }

    /// Sets the topic.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Sets the maximum messages and bytes buffered for replay.
    #[must_use]
    pub fn buffer(mut self, steps: usize, bytes: u64) -> Self {
        (self.buffer_steps, self.buffer_bytes) = (steps, bytes);
        self
    }
}

impl FleetConfig {
    /// Reports invalid values.
    pub(super) fn validate(&self, problems: &mut Problems) {
        let Some(events) = &self.kv_events else { return };
        if cfg!(not(feature = "kv-events")) {
            let message = "this exsa-server was built without KV events; build it with --features kv-events";
            return problems.add("fleet.kv_events", message);
        }
        let bind = ("bind", Some(&events.bind));
        for (name, address) in [bind, ("replay", events.replay.as_ref())] {
            let Some(address) = address else { continue };
            let setting = format!("fleet.kv_events.{name}");
            match endpoint(address) {
                None => problems.add(
                    setting,
                    format!("'{address}' is no address; allowed is \"tcp://IP:PORT\", or * in place of the IP"),
                ),
                Some(at) if !at.ip().is_loopback() && !events.insecure_no_auth => problems.add(
                    setting,
                    format!(
                        "{} is reachable from other machines, nothing authenticates readers, and events contain the \
                         tokens of all users; bind to 127.0.0.1, or set insecure_no_auth if the network is closed",
                        at.ip()
                    ),
                ),
                Some(_) => {}
            }
        }
        if !(1..=STEPS_MAX).contains(&events.buffer_steps) {
            problems.add("fleet.kv_events.buffer_steps", format!("allowed is 1 to {STEPS_MAX}"));
        }
    }
}

/// Parses `tcp://IP:PORT`, where the IP may be `*`.
pub(crate) fn endpoint(text: &str) -> Option<SocketAddr> {
    let address = text.strip_prefix("tcp://")?;
    match address.strip_prefix("*:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.parse().ok()?))),
        None => address.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: KvEventsConfig) -> Vec<String> {
        let mut problems = Problems::default();
        FleetConfig { kv_events: Some(config) }.validate(&mut problems);
        problems
            .found
            .into_iter()
            .map(|problem| format!("{}: {}", problem.setting, problem.message))
            .collect()
    }

    #[test]
    fn addresses_are_ips_with_ports() {
        for (text, address) in [
            ("tcp://127.0.0.1:5557", "127.0.0.1:5557"),
            ("tcp://[::1]:1", "[::1]:1"),
            ("tcp://*:2", "0.0.0.0:2"),
        ] {
            assert_eq!(endpoint(text), address.parse().ok(), "{text}");
        }
        for text in
            ["", "127.0.0.1:5557", "tcp://", "tcp://*", "tcp://*:x", "tcp://localhost:1", "ipc:///tmp/x"]
        {
            assert_eq!(endpoint(text), None, "{text}");
        }
    }

    #[test]
    #[cfg(feature = "kv-events")]
    fn tokens_leave_the_machine_only_by_a_setting_of_its_own() {
        let open = KvEventsConfig::new("tcp://*:5557").replay("tcp://127.0.0.1:1");
        let found = problems(open.clone());
        assert!(
            found.len() == 1 && found[0].starts_with("fleet.kv_events.bind: 0.0.0.0 is reachable"),
            "{found:?}"
        );
        assert_eq!(problems(KvEventsConfig { insecure_no_auth: true, ..open }), Vec::<String>::new());
        let replay = problems(KvEventsConfig::default().replay("tcp://10.0.0.1:1").buffer(0, 1));
        assert_eq!(replay.len(), 2, "{replay:?}");
        assert_eq!(problems(KvEventsConfig::default()), Vec::<String>::new());
    }

    #[test]
    #[cfg(not(feature = "kv-events"))]
    fn a_build_without_events_says_so() {
        assert!(problems(KvEventsConfig::default())[0].contains("--features kv-events"));
    }
}
