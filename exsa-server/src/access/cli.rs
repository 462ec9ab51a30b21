//! The commands `exsa-server key`: through the control socket of a running server, or directly on the
//! database.

use super::caller::Caller;
use super::{AllowedModels, KeyError, KeyOptions, KeyRecord, Keys, ModelPattern, Scope, Store, StoreError};
use crate::quota::Limits;
use clap::{Args, Subcommand};
use exsa_core::Priority;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Time during which a starting or stopping server may keep both the database and the socket closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Manages API keys.
#[derive(Clone, Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Create a key and print it; it cannot be shown again
    New(New),
    /// List keys
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key: it is refused from now on, and its running streams end
    Revoke {
        /// Key id
        id: String,
    },
    /// Create a new secret for a key and print it
    Rotate {
        /// Key id
        id: String,
        /// Time for which the old secret stays valid, such as 1h; by default it is revoked
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        overlap: Option<Duration>,
    },
}

#[derive(Clone, Debug, Args)]
struct New {
    /// Display name
    #[arg(long)]
    name: String,
    /// Scope: infer, models, metrics, audit or keys; repeatable; infer by default
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<Scope>,
    /// Allowed model, or a prefix that ends with '*'; repeatable; all by default
    #[arg(long, value_name = "NAME")]
    model: Vec<ModelPattern>,
    /// Group whose quota is shared
    #[arg(long)]
    group: Option<String>,
    /// The most urgent request class allowed: interactive, normal or batch
    #[arg(long, value_name = "CLASS", default_value = "normal", value_parser = read_priority)]
    priority_max: Priority,
    /// Share of the engine relative to other keys
    #[arg(long, default_value_t = 1.0)]
    weight: f32,
    /// Time until the key expires, such as 30d; never by default
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// Allow requests to name their end user
    #[arg(long)]
    trusted_proxy: bool,
    /// Limit of this key, such as requests_per_minute=60 or streams=unlimited; repeatable
    #[arg(long, value_name = "LIMIT=NUMBER", value_parser = read_limit)]
    quota: Vec<(String, Value)>,
}

fn read_priority(name: &str) -> Result<Priority, String> {
    let found = Priority::ALL.into_iter().find(|class| class.name() == name);
    found.ok_or_else(|| "allowed are interactive, normal and batch".into())
}

/// Parses `NAME=NUMBER` or `NAME=unlimited`, with the names of the section `[quota.keys.ID]`.
fn read_limit(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("allowed is LIMIT=NUMBER or LIMIT=unlimited")?;
    let value = value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from);
    Limits::from_json(&json!({name: value.clone()})).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value))
}

/// Runs a command on the keys in `folder`.
///
/// # Errors
///
/// The command is refused, or neither the database nor a running server can be reached.
pub fn run(args: &KeyArgs, folder: &Path) -> Result<(), Box<dyn Error>> {
    if let Command::New(new) = &args.command
        && let Some(name) = new.repeated_limit()
    {
        return Err(format!("--quota {name}: the limit is given twice").into());
    }
    let answer = perform(&args.command, folder)?;
    let mut out = io::stdout().lock();
    match &args.command {
        Command::List { json: false } => write_table(&answer, &mut out)?,
        Command::List { json: true } => writeln!(out, "{answer:#}")?,
        Command::Revoke { .. } => eprintln!("key {} revoked", text(&answer, "id")),
        Command::New(_) | Command::Rotate { .. } => {
            // Only the key goes to standard output, for scripts.
            eprintln!("key {} ({}); it is not shown again:", text(&answer, "id"), text(&answer, "name"));
            writeln!(out, "{}", text(&answer, "key"))?;
        }
    }
    Ok(())
}

/// Sends the command to the folder's server, or opens the database if there is none.
fn perform(command: &Command, folder: &Path) -> Result<Value, Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask_server(command, folder)? {
            return Ok(answer);
        }
        match Store::open(folder) {
            Ok(store) => return Ok(act(command, &Keys::open(Arc::new(store))?)?),
            Err(StoreError::InUse { .. }) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl New {
    fn options(&self) -> KeyOptions {
        let mut options = KeyOptions::new(&self.name).priority_max(self.priority_max).weight(self.weight);
        if !self.scope.is_empty() {
            options = options.scopes(self.scope.iter().copied());
        }
        if !self.model.is_empty() {
            options.models = AllowedModels::only(self.model.iter().cloned());
        }
        (options.group, options.expires_in) = (self.group.clone(), self.expires);
        options.quota = (!self.quota.is_empty()).then(|| self.quota.iter().cloned().collect());
        options.trusted_proxy(self.trusted_proxy)
    }

    /// Returns a limit that is given more than once.
    fn repeated_limit(&self) -> Option<&str> {
        let mut names: Vec<_> = self.quota.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }
}

/// Runs a command on the database. Results have the form of the routes.
fn act(command: &Command, keys: &Keys) -> Result<Value, KeyError> {
    let operator = Caller::operator();
    let shown = |(record, text): (KeyRecord, super::SecretText)| {
        let mut answer = record.json();
        answer["key"] = text.expose().into();
        answer
    };
    match command {
        Command::New(new) => keys.create(&new.options(), &operator).map(shown),
        Command::List { .. } => {
            let records: Vec<_> = keys.list(&operator).iter().map(KeyRecord::json).collect();
            Ok(json!({"object": "list", "data": records}))
        }
        Command::Revoke { id } => keys.revoke(id, &operator).map(|record| record.json()),
        Command::Rotate { id, overlap } => keys.rotate(id, *overlap, &operator).map(shown),
    }
}

/// Returns method, path and body for the control socket.
#[cfg(unix)]
fn request(command: &Command) -> (&'static str, String, Value) {
    let time = |time: &Option<Duration>| time.map(|time| humantime::format_duration(time).to_string());
    match command {
        Command::New(new) => {
            let options = new.options();
            let body = json!({
                "name": options.name, "scopes": options.scopes, "models": options.models,
                "priority_max": options.priority_max, "weight": options.weight, "group": options.group,
                "trusted_proxy": options.trusted_proxy, "expires_in": time(&options.expires_in),
                "quota": options.quota,
            });
            ("POST", "/v1/keys".into(), body)
        }
        Command::List { .. } => ("GET", "/v1/keys".into(), json!({})),
        Command::Revoke { id } => ("POST", format!("/v1/keys/{}/revoke", segment(id)), json!({})),
        Command::Rotate { id, overlap } => {
            ("POST", format!("/v1/keys/{}/rotate", segment(id)), json!({"overlap": time(overlap)}))
        }
    }
}

/// Encodes a text as one path segment: characters that ids cannot have become `_`, which no id has.
#[cfg(unix)]
fn segment(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Sends a command to the folder's server; `None` if there is none.
#[cfg(unix)]
fn ask_server(command: &Command, folder: &Path) -> Result<Option<Value>, Box<dyn Error>> {
    use std::os::unix::net::UnixStream;
    let mut connection = match UnixStream::connect(super::control::path(folder)) {
        Ok(connection) => connection,
        // No socket, or the socket of a dead server.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("{}: {error}", super::control::path(folder).display()).into()),
    };
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    connection.set_write_timeout(Some(Duration::from_secs(30)))?;
    let (method, path, body) = request(command);
    let body = body.to_string();
    // HTTP/1.0 ends a response with the connection.
    let head = format!("{method} {path} HTTP/1.0\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all((head + &body).as_bytes())?;
    let mut response = Vec::new();
    io::Read::read_to_end(&mut connection, &mut response)?;
    let response = String::from_utf8(response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or("the server gave no answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    let answer: Value = serde_json::from_str(body)?;
    if !status.starts_with('2') {
        let message = answer["error"]["message"].as_str().unwrap_or(body);
        return Err(message.to_owned().into());
    }
    Ok(Some(answer))
}

#[cfg(not(unix))]
fn ask_server(_: &Command, _: &Path) -> Result<Option<Value>, Box<dyn Error>> {
    Ok(None)
}

fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or("-")
}

fn write_table(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:16}  {:20}  {:20}  {:20}  {:12}  scopes", "id", "created", "expires", "state", "group")?;
    for record in answer["data"].as_array().into_iter().flatten() {
        let time = |field: &str| {
            let time = record[field]
                .as_u64()
                .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
            time.map_or("-".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
        };
        let expired =
            record["expires"].as_u64().is_some_and(|expires| expires <= crate::state::unix_seconds());
        let state = match record["revoked"].is_null() {
            false => "revoked",
            true if expired => "expired",
            true => "valid",
        };
        let scopes = record["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let scopes: Vec<_> = scopes.collect();
        let (id, name, group) = (text(record, "id"), text(record, "name"), text(record, "group"));
        let (created, expires) = (time("created"), time("expires"));
        writeln!(
            out,
            "{id:16}  {created:20}  {expires:20}  {state:20}  {group:12}  {}  {name}",
            scopes.join(",")
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use redb::backends::InMemoryBackend;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: KeyArgs,
    }

    fn command(words: &[&str]) -> Result<Command, String> {
        let words = ["key"].iter().chain(words);
        Cli::try_parse_from(words).map(|cli| cli.args.command).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_of_a_key_are_set_and_outlive_a_rotation() {
        let keys = Keys::open(Arc::new(Store::with_backend(InMemoryBackend::new()).unwrap())).unwrap();
        let words =
            ["new", "--name", "a", "--quota", "requests_per_minute=60", "--quota", "streams=unlimited"];
        let made = act(&command(&words).unwrap(), &keys).unwrap();
        let limits = json!({"requests_per_minute": 60, "streams": "unlimited"});
        assert_eq!(made["quota"], limits);
        let id = made["id"].as_str().unwrap();
        let rotated = act(&command(&["rotate", id]).unwrap(), &keys).unwrap();
        assert_eq!((&rotated["id"], &rotated["quota"]), (&made["id"], &limits));
        assert_ne!(rotated["key"], made["key"]);
        let made = act(&command(&["new", "--name", "b"]).unwrap(), &keys).unwrap();
        assert_eq!(made["quota"], Value::Null);
    }

    #[cfg(unix)]
    #[test]
    fn limits_reach_a_running_server() {
        let command = command(&["new", "--name", "a", "--quota", "output_tokens_per_day=7"]).unwrap();
        let (_, _, body) = request(&command);
        let options: KeyOptions = serde_json::from_value(body).unwrap();
        assert_eq!(options.quota, Some(json!({"output_tokens_per_day": 7})));
    }

    #[test]
    fn limits_that_are_not_allowed_are_named() {
        for (limit, word) in [
            ("requests=5", "requests_per_minute"),
            ("streams", "LIMIT=NUMBER"),
            ("streams=-1", "unlimited"),
            ("streams=2000000000000", "1000000000000"),
        ] {
            let error = command(&["new", "--name", "a", "--quota", limit]).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        let words = ["new", "--name", "a", "--quota", "streams=1", "--quota", "streams=2"];
        let Ok(Command::New(new)) = command(&words) else { panic!() };
        assert_eq!(new.repeated_limit(), Some("streams"));
    }
}
