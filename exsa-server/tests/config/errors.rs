//! Errors name file, line and column, the allowed values, and a near name.

use exsa_server::config::ConfigSource;

/// Problems of a file with this text, as they are printed.
fn problems(name: &str, text: &str) -> String {
    let file = std::env::temp_dir().join(format!("exsa-config-{}-{name}.toml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let loaded = ConfigSource::new(Some(file.clone())).load();
    let printed = loaded.err().map_or_else(String::new, |error| error.to_string());
    std::fs::remove_file(&file).unwrap();
    printed.replace(&file.display().to_string(), "exsa.toml")
}

#[test]
fn wrong_files_are_described_where_they_are_wrong() {
    let cases = [
        (
            "misspelt key",
            "[listen]\nprot = 9000\n",
            "exsa.toml:2:1: listen.prot: there is no key 'prot' in [listen]; did you mean 'port'? allowed are tcp, host, \
             port, also, unix, unix_mode, insecure_no_auth\n  |\n2 | prot = 9000\n  | ^^^^",
        ),
        (
            "draft model without a file",
            "[models.chat]\nbuiltin = true\n[models.chat.draft]\npath = \"nowhere.gguf\"\n",
            "exsa.toml:4:8: models.chat.draft.path: nowhere.gguf: No such file or directory (os error 2)\n  |\n\
             4 | path = \"nowhere.gguf\"\n  |        ^^^^^^^^^^^^^^",
        ),
        (
            "draft model without speculation",
            "[engine]\nspeculation = \"off\"\n[models.chat]\nbuiltin = true\ndraft = { builtin = true }\n",
            "exsa.toml:5:1: models.chat.draft: speculation is off in [engine]; auto or on is needed for a draft \
             model\n  |\n5 | draft = { builtin = true }\n  | ^^^^^",
        ),
        (
            "port out of range",
            "listen.port = 70000",
            "exsa.toml:1:15: listen.port: integer 70000 is not allowed; allowed is an integer from 0 to 65535\n  |\n\
             1 | listen.port = 70000\n  |               ^^^^^",
        ),
        (
            "wrong type",
            "[listen]\n  port = \"8080\" # a text",
            "exsa.toml:2:10: listen.port: string \"8080\" is not allowed; allowed is an integer from 0 to 65535\n  |\n\
             2 |   port = \"8080\" # a text\n  |          ^^^^^^",
        ),
        (
            "no address",
            "[listen]\nhost = \"localhost\"",
            "exsa.toml:2:8: listen.host: this is no IP address; allowed are addresses such as \"127.0.0.1\", \"0.0.0.0\" \
             or \"::1\"\n  |\n2 | host = \"localhost\"\n  |        ^^^^^^^^^^^",
        ),
        (
            "reachable address",
            "[listen]\nhost = \"0.0.0.0\"",
            "exsa.toml:2:8: listen.host: 0.0.0.0 is reachable from other machines and the server has no authentication; \
             bind to 127.0.0.1, or set insecure_no_auth (--insecure-no-auth) if something in front of it authenticates\n\
             \u{20} |\n2 | host = \"0.0.0.0\"\n  |        ^^^^^^^^^",
        ),
        (
            "item of a list",
            "[listen]\nalso = [\"127.0.0.1:1\", \"127.0.0.1\"]",
            "exsa.toml:2:24: listen.also.1: this is no address with a port; allowed are \"127.0.0.1:8080\" or \
             \"[::1]:8080\"\n  |\n2 | also = [\"127.0.0.1:1\", \"127.0.0.1\"]\n  |                        ^^^^^^^^^^^",
        ),
        (
            "duplicate address",
            "[listen]\nalso = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "exsa.toml:2:24: listen.also.1: 127.0.0.1:1 is listed twice\n  |\n\
             2 | also = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n  |                        ^^^^^^^^^^^^^",
        ),
        (
            "unknown variant",
            "[engine]\nmode = \"latancy\"",
            "exsa.toml:2:8: engine.mode: 'latancy' is not allowed; did you mean 'latency'? allowed are latency, \
             throughput, balanced\n  |\n2 | mode = \"latancy\"\n  |        ^^^^^^^^^",
        ),
        (
            "duration",
            "[limits]\nbody_timeout = 60",
            "exsa.toml:2:16: limits.body_timeout: integer 60 is not allowed; allowed is a duration in quotes, such as \
             \"30s\", \"5m\" or \"200ms\"\n  |\n2 | body_timeout = 60\n  |                ^^",
        ),
        (
            "size",
            "[limits]\nbody_bytes_max = \"16 mb\"",
            "exsa.toml:2:18: limits.body_bytes_max: string \"16 mb\" is not allowed; allowed is a number of bytes, or a \
             size in quotes such as \"64 KiB\", \"16 MiB\" or \"2 GiB\"\n  |\n2 | body_bytes_max = \"16 mb\"\n\
             \u{20} |                  ^^^^^^^",
        ),
        (
            "negative",
            "[engine]\nqueue_max = -1",
            "exsa.toml:2:13: engine.queue_max: integer -1 is not allowed; allowed is an integer, 0 or more\n  |\n\
             2 | queue_max = -1\n  |             ^^",
        ),
        (
            "file that is not there",
            "[engine]\nmodel = \"/no/such.gguf\"",
            "exsa.toml:2:9: engine.model: /no/such.gguf cannot be read: No such file or directory (os error 2)\n  |\n\
             2 | model = \"/no/such.gguf\"\n  |         ^^^^^^^^^^^^^^^",
        ),
        (
            "level",
            "[log]\nlevel = \"inof\"",
            "exsa.toml:2:9: log.level: 'inof' is no level; did you mean 'info'? allowed are off, error, warn, info, \
             debug, trace, also by module: \"info,exsa_server=debug\"\n  |\n2 | level = \"inof\"\n  |         ^^^^^^",
        ),
        (
            "mode",
            "[listen]\nunix_mode = \"0999\"",
            "exsa.toml:2:13: listen.unix_mode: '0999' is no mode; allowed are octal digits from \"0000\" to \"0777\"\n\
             \u{20} |\n2 | unix_mode = \"0999\"\n  |             ^^^^^^",
        ),
        (
            "section as a value",
            "listen = 3",
            "exsa.toml:1:10: listen: integer 3 is not allowed; allowed is a table\n  |\n1 | listen = 3\n  |          ^",
        ),
        (
            "syntax",
            "[listen]\nport = \nhost = \"127.0.0.1\"",
            "exsa.toml:2:8: string values must be quoted; expected is literal string\n  |\n2 | port = \n  |        ^",
        ),
        (
            "duplicate key",
            "[listen]\nport = 1\nport = 2",
            "exsa.toml:3:1: duplicate key\n  |\n3 | port = 2\n  | ^^^^",
        ),
        (
            "origin",
            "[http]\nallowed_origins = [\"https://a.example/\"]",
            "exsa.toml:2:20: http.allowed_origins.0: 'https://a.example/' is no origin; allowed are scheme, host and \
             port, such as \"https://app.example.org\"\n  |\n2 | allowed_origins = [\"https://a.example/\"]\n\
             \u{20} |                    ^^^^^^^^^^^^^^^^^^^^",
        ),
        (
            "key that is nowhere",
            "[http]\ncors = true",
            "exsa.toml:2:8: http.cors: true needs 'allowed_origins', the origins that it is for\n  |\n\
             2 | cors = true\n  |        ^^^^",
        ),
    ];
    for (name, text, expected) in cases {
        assert_eq!(problems(&name.replace(' ', "-"), text), expected, "{name}");
    }
}

#[test]
fn shared_keys_and_shares_are_checked_at_their_place() {
    let access = "[access]\nenabled = true\ndata = \"/d\"\n";
    for (name, text, expected) in [
        (
            "both",
            format!("{access}export = \"/k\"\nimport = \"/k\""),
            "exsa.toml:5:10: access.import: not allowed beside access.export",
        ),
        (
            "folder",
            format!("{access}export = \"/no/such/keys\""),
            "exsa.toml:4:10: access.export: the folder /no/such does not exist",
        ),
        ("no file", format!("{access}export = \"/\""), "exsa.toml:4:10: access.export: / is not a file"),
        (
            "off",
            "access.import = \"/k\"".into(),
            "exsa.toml:1:17: access.import: allowed only where access.enabled is true",
        ),
        ("share 0", "quota.share = 0".into(), "exsa.toml:1:15: quota.share: "),
        ("share", "[quota]\nshare = 1.5".into(), "exsa.toml:2:9: quota.share: "),
    ] {
        let printed = problems(&name.replace(' ', "-"), &text);
        assert!(printed.starts_with(expected) && printed.ends_with('^'), "{name}: {printed}");
        assert!(!name.starts_with("share") || printed.contains("above 0 and at most 1"), "{printed}");
    }
}

#[test]
fn the_imported_file_is_part_of_the_check_but_not_of_the_start() {
    let folder = std::env::temp_dir().join(format!("exsa-config-import-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (file, keys) = (folder.join("exsa.toml"), folder.join("keys"));
    let text = format!("[access]\nenabled = true\ndata = 'd'\nimport = '{}'", keys.display());
    std::fs::write(&file, text).unwrap();
    let source = ConfigSource::new(Some(file));
    for content in [None, Some("{\"exsa_keys\":1,\"sequence\":0,\"keys\":0}\n"), Some("hello")] {
        if let Some(content) = content {
            std::fs::write(&keys, content).unwrap();
        }
        assert!(source.load().is_ok());
        let printed = source.check().unwrap_err().to_string();
        assert!(printed.contains("exsa.toml:4:10: access.import: "), "{printed}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_misspelt_section_is_described() {
    let printed = problems("section", "\n[listn]\nport = 1");
    let head =
        "exsa.toml:2:2: listn: there is no section 'listn'; did you mean 'listen'? allowed are listen, tls, ";
    assert!(printed.starts_with(head), "{printed}");
    assert!(printed.ends_with("\n  |\n2 | [listn]\n  |  ^^^^^"), "{printed}");
}

#[test]
fn all_problems_are_reported_in_the_order_of_their_lines() {
    let text = "[drain]\ntimeout = 3\n[listen]\nprot = 1\nport = 99999\nhost = \"x\"\n[limits]\nn_max = 0\n\
                [tsl]\ncert = \"a\"\n[log]\nlevel = \"loud\"\nformat = \"xml\"\n";
    let printed = problems("all", text);
    let places: Vec<_> = printed.lines().filter_map(|line| line.strip_prefix("exsa.toml:")).collect();
    let places: Vec<_> = places.iter().map(|place| place.split(": ").take(2).collect::<Vec<_>>()).collect();
    let expected = [
        ["2:11", "drain.timeout"],
        ["4:1", "listen.prot"],
        ["5:8", "listen.port"],
        ["6:8", "listen.host"],
        ["8:9", "limits.n_max"],
        ["9:2", "tsl"],
        ["12:9", "log.level"],
        ["13:10", "log.format"],
    ];
    assert_eq!(places, expected, "{printed}");
}

#[cfg(not(feature = "tls"))]
#[test]
fn tls_needs_a_build_with_tls() {
    let printed = problems("no-tls", "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"");
    let expected =
        "exsa.toml:2:8: tls.cert: this exsa-server was built without TLS; build it with --features tls";
    assert!(printed.starts_with(expected), "{printed}");
}

#[test]
fn a_flag_at_fault_is_named() {
    let source = ConfigSource::new(None).overrides(|config| {
        config.listen.host = "10.0.0.1".parse().unwrap();
        vec![("listen.host", "--host")]
    });
    let printed = source.load().unwrap_err().to_string();
    assert!(printed.starts_with("--host: listen.host: 10.0.0.1 is reachable"), "{printed}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let missing = ConfigSource::new(Some("/no/such/exsa.toml".into())).load().unwrap_err().to_string();
    assert!(missing.starts_with("/no/such/exsa.toml: the file cannot be read: "), "{missing}");
    let file = std::env::temp_dir().join(format!("exsa-config-{}-latin.toml", std::process::id()));
    std::fs::write(&file, b"[log]\nlevel = \"\xe4\"\n").unwrap();
    let latin = ConfigSource::new(Some(file.clone())).load().unwrap_err().to_string();
    assert!(latin.contains("latin.toml:2:10: the text is not UTF-8"), "{latin}");
    std::fs::write(&file, vec![b' '; (1 << 20) + 1]).unwrap();
    let large = ConfigSource::new(Some(file.clone())).load().unwrap_err().to_string();
    assert!(large.ends_with("the file is larger than 1048576 bytes"), "{large}");
    std::fs::remove_file(file).unwrap();
}
