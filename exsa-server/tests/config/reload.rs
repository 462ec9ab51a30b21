//! A reload changes everything or nothing, and names what needs a restart.

use crate::served::folder;
use exsa_server::config::{Config, ConfigSource, Problems};
use exsa_server::reload::{Change, Limits, Reload, Reloader, Routes};
use exsa_server::{Live, ServerOptions};

struct Fixture {
    file: std::path::PathBuf,
    options: Live<ServerOptions>,
    limits: Live<exsa_server::listener::ConnectionLimits>,
    reloader: Reloader,
}

fn fixture(text: &str) -> Fixture {
    let file = folder().join("exsa.toml");
    std::fs::write(&file, text).unwrap();
    let source = ConfigSource::new(Some(file.clone()));
    let config = source.load().unwrap();
    let options = Live::new(config.server_options());
    let limits = Live::new(config.limits.connections());
    let reloader = Reloader::new(source, config).part(Routes(options.clone())).part(Limits(limits.clone()));
    Fixture { file, options, limits, reloader }
}

#[test]
fn a_good_file_changes_what_can_change() {
    let Fixture { file, options, limits, reloader } = fixture("");
    let text = "[limits]\nn_max = 3\nconnections_max = 7\n[http]\nallowed_hosts = [\"a.example\"]\n\
                [listen]\nport = 1234\n[engine]\nmode = \"latency\"\n";
    std::fs::write(&file, text).unwrap();
    let report = reloader.reload().unwrap();
    assert_eq!(report.changed, ["http.allowed_hosts", "limits.connections_max", "limits.n_max"]);
    // No part was added for the mode here.
    assert_eq!(report.needs_restart, ["engine.mode", "listen.port"]);
    assert_eq!((options.get().n_max, limits.get().connections_max), (3, 7));
    assert_eq!(options.get().allowed_hosts, ["a.example"]);
    // Settings that need a restart are named until then, changed ones only once.
    let report = reloader.reload().unwrap();
    assert_eq!(
        (report.changed.len(), report.needs_restart),
        (0, vec!["engine.mode".into(), "listen.port".into()])
    );
    std::fs::write(&file, "").unwrap();
    let report = reloader.reload().unwrap();
    assert_eq!((report.changed.len(), report.needs_restart.len()), (3, 0));
    assert_eq!(options.get().n_max, 128);
}

#[test]
fn a_bad_file_changes_nothing() {
    let Fixture { file, options, limits, reloader } = fixture("[limits]\nn_max = 5\n");
    std::fs::write(&file, "[limits]\nn_max = 6\nconnections_max = 0\n").unwrap();
    let error = reloader.reload().unwrap_err().to_string();
    assert!(error.contains("exsa.toml:3:19: limits.connections_max: 0 is too small"), "{error}");
    assert_eq!((options.get().n_max, limits.get().connections_max), (5, 1024));
    std::fs::remove_file(&file).unwrap();
    assert!(reloader.reload().is_err());
    assert_eq!(options.get().n_max, 5);
}

struct Refuses;

impl Reload for Refuses {
    fn settings(&self) -> &[&'static str] {
        &["log"]
    }

    fn prepare(&self, config: &Config, problems: &mut Problems) -> Option<Change> {
        problems.add("log.level", format!("'{}' is refused", config.log.level));
        None
    }
}

#[test]
fn a_part_that_refuses_stops_the_others() {
    let Fixture { file, options, reloader, .. } = fixture("");
    let reloader = reloader.part(Refuses);
    std::fs::write(&file, "limits.n_max = 3\nlog.level = \"debug\"\n").unwrap();
    let error = reloader.reload().unwrap_err().to_string();
    assert!(error.contains("exsa.toml:2:13: log.level: 'debug' is refused"), "{error}");
    assert_eq!(options.get().n_max, 128);
}
