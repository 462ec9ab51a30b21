//! The worker's side: an engine that serves the host over its connection.

mod embeds;
mod heart;
mod jobs;
mod requests;
mod service;
mod sink;

use crate::frame::{FrameError, FrameReader, FromWorker, Hello, ToWorker};
use crate::output::Output;
use crate::sandbox::{self, SandboxMode, SandboxReport};
use crate::setup::Setup;
use crate::transport::{self, Receiver};
use exsa_core::Engine;
use service::Service;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// First argument of a worker; the second is the host's process id.
pub(crate) const ARGUMENT: &str = "--exsa-worker";
/// Exit code of a worker that was not started by a host, or by a host with another protocol version.
pub(crate) const EXIT_PROTOCOL: i32 = 64;
/// Exit code of a worker whose model could not be loaded.
pub(crate) const EXIT_LOAD: i32 = 65;
/// Exit code of a worker whose engine has stopped because the backend panicked.
pub(crate) const EXIT_PANICKED: i32 = 70;

/// Time to write the last messages, and for exit handlers.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// If this process was started as a worker, serves the host with the engine that `build` creates, and never
/// returns; otherwise returns immediately.
/// returns; otherwise returns at once.
///
/// It must be the first call in `main`: the sandbox only restricts threads that start after it. All of
/// `build` runs inside the sandbox.
///
/// ```no_run
/// use exsa_core::scripted::ScriptedModel;
/// use exsa_core::Engine;
///
/// fn main() {
///     exsa_worker::run_if_worker(|setup| {
///         Ok(Engine::start(ScriptedModel::echo("Hello.").shared(), setup.engine)?)
///     });
///     // The host's own work.
/// }
/// ```
pub fn run_if_worker<F>(build: F)
where
    F: FnOnce(Setup) -> Result<Engine, Box<dyn Error + Send + Sync>>,
{
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != ARGUMENT) {
        return;
    }
    let parent = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    let Some(parent) = parent else {
        eprintln!("{ARGUMENT} is for processes that a host of exsa-worker starts");
        exit(EXIT_PROTOCOL)
    };
    exit(run(parent, build))
}

fn run<F>(parent: u32, build: F) -> i32
where
    F: FnOnce(Setup) -> Result<Engine, Box<dyn Error + Send + Sync>>,
{
    let mut report = SandboxReport::default();
    match sandbox::die_with_parent(parent) {
        Ok(arranged) => report.ends_with_host = arranged,
        Err(reason) => {
            eprintln!("exsa-worker: {reason}");
            return EXIT_PROTOCOL;
        }
    }
    let (mut reader, sender, setup) = match greet() {
        Ok(greeted) => greeted,
        Err(error) => {
            eprintln!("exsa-worker: {error}");
            return EXIT_PROTOCOL;
        }
    };
    sandbox::prepare(setup.memory_max, &mut report);
    let packed = setup.packed_file();
    sandbox::enter(&setup.sandbox, setup.model.as_deref(), packed.as_deref(), &mut report);
    let is_enough = setup.sandbox.mode != SandboxMode::Required || report.is_complete();

    let output = Arc::new(Output::default());
    let service = Arc::new(Service::new(output.clone()));
    // Both messages are short enough.
    let _ = output.send(&FromWorker::Hello(Hello::new()));
    let _ = output.send(&FromWorker::Sandboxed(report.clone()));
    let started = start_threads(&service, &setup, sender, move |service| receive(&mut reader, service));
    let failed = |reason: String| {
        let _ = output.send(&FromWorker::LoadFailed { reason });
        output.flush(LAST_WORDS);
        EXIT_LOAD
    };
    if let Err(error) = started {
        return failed(format!("threads cannot be started: {error}"));
    }
    if !is_enough {
        return failed(format!("the sandbox is required, but the level reached is: {report}"));
    }
    let engine = match catch_unwind(AssertUnwindSafe(|| build(setup))) {
        Ok(Ok(engine)) => engine,
        Ok(Err(error)) => return failed(chain(&*error)),
        Err(panic) => return failed(format!("loading panicked: {}", panic_text(&*panic))),
    };
    let info = match serde_json::to_string(engine.info()) {
        Ok(info) => info,
        Err(error) => return failed(format!("the engine's facts: {error}")),
    };
    service.open(engine);
    let _ = output.send(&FromWorker::Ready { info });
    let code = service.wait_for_end();
    output.flush(LAST_WORDS);
    // Exit handlers of libraries may wait for threads that hang.
    let _ = thread::Builder::new().spawn(|| {
        thread::sleep(LAST_WORDS);
        sandbox::die();
    });
    code
}

/// Exchanges the greetings.
fn greet() -> Result<(FrameReader<Receiver>, transport::Sender, Setup), FrameError> {
    let content = |problem: String| FrameError::Content(problem);
    let (receiver, sender) =
        transport::connect().map_err(|error| content(format!("no connection to a host: {error}")))?;
    let mut reader = FrameReader::new(receiver);
    match reader.read()? {
        Some(ToWorker::Hello(hello)) => hello.check()?,
        other => return Err(content(format!("the host begins with {}", name(other.as_ref())))),
    }
    match reader.read()? {
        Some(ToWorker::Setup(json)) => {
            let setup = serde_json::from_str(&json);
            Ok((reader, sender, setup.map_err(|error| content(format!("the host's setup: {error}")))?))
        }
        other => Err(content(format!("no setup follows, but {}", name(other.as_ref())))),
    }
}

fn start_threads(
    service: &Arc<Service>,
    setup: &Setup,
    sender: transport::Sender,
    receive: impl FnOnce(&Arc<Service>) + Send + 'static,
) -> std::io::Result<()> {
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.into()).spawn(work).map(drop)
    };
    let writer = service.clone();
    spawn("exsa-writer", Box::new(move || writer.output().run(sender, || writer.resume_all())))?;
    let heart = service.clone();
    let progress = setup.progress.clone();
    spawn("exsa-heart", Box::new(move || heart::beat(&heart, &progress)))?;
    for _ in 0..jobs::THREADS {
        let jobs = service.clone();
        spawn("exsa-prepare", Box::new(move || jobs.jobs().run()))?;
    }
    let reader = service.clone();
    spawn("exsa-reader", Box::new(move || receive(&reader)))
}

/// Handles the host's messages until the connection ends; then the process exits, whatever it is doing.
fn receive(reader: &mut FrameReader<Receiver>, service: &Arc<Service>) {
    loop {
        match reader.read() {
            Ok(Some(message)) => {
                if let Err(problem) = service.handle(message) {
                    eprintln!("exsa-worker: {problem}");
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                eprintln!("exsa-worker: {error}");
                break;
            }
        }
    }
    sandbox::die()
}

fn name(message: Option<&ToWorker>) -> &'static str {
    match message {
        None => "nothing",
        Some(ToWorker::Hello(_)) => "a second greeting",
        Some(ToWorker::Setup(_)) => "a setup",
        Some(_) => "a request",
    }
}

/// Formats an error and its sources as one text.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// Returns the message of a panic.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
