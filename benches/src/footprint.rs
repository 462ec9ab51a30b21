//! How much memory a backend takes, and how long it loads, in a process of its own.

use crate::case::Case;
use crate::error::BenchError;
use crate::measure::{Rounds, measure};
use crate::memory;
use crate::options::Options;
use crate::throughput::{Loaded, write_line};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};

/// One JSON line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Footprint {
    /// Name of the backend.
    pub backend: String,
    /// The model's file as it was given.
    pub model: Option<String>,
    /// The case in words.
    pub case: String,
    /// Bytes of the model's file.
    pub file_bytes: Option<u64>,
    /// How long loading took, in seconds. The file was in the page cache if it was read before.
    pub load_seconds: f64,
    /// Most physical memory that the process held, mapped files included.
    pub peak_rss_bytes: Option<u64>,
    /// Of what it held at the end, what is its own.
    pub anonymous_bytes: Option<u64>,
    /// Of what it held at the end, what the system could give up since a file has it too.
    pub mapped_bytes: Option<u64>,
}

/// Measures each backend in each case in a process of its own and writes a line for each to `out`.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), BenchError> {
    for case in Case::all(options) {
        for backend in &options.backend {
            let program = std::env::current_exe().map_err(BenchError::Alone)?;
            let child = Command::new(program)
                .args(arguments(options, &case, backend))
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()
                .and_then(std::process::Child::wait_with_output)
                .map_err(BenchError::Alone)?;
            if !child.status.success() {
                return Err(BenchError::AloneFailed { backend: backend.clone(), status: child.status });
            }
            out.write_all(&child.stdout).and_then(|()| out.flush()).map_err(BenchError::Write)?;
        }
    }
    Ok(())
}

/// Runs the one case on the one backend in this process.
pub fn alone(options: &Options, out: &mut dyn Write) -> Result<(), BenchError> {
    for (backend, case) in options.backend.iter().zip(Case::all(options)) {
        let lengths = case.lengths(options.seed);
        let loaded = Loaded::load(options, backend)?;
        let room = loaded.room(options, &case, &lengths)?;
        let generate = room.generate;
        let mut contender = [loaded.contender(options, &case, room)?];
        let rounds = Rounds { warmup: 0, prefill: 1, decode: 1, batch: options.batch };
        measure(&mut contender, &case, &lengths, rounds, generate)?;
        let held = memory::held();
        let footprint = Footprint {
            backend: backend.clone(),
            model: options.model.as_ref().map(|path| path.display().to_string()),
            case: case.to_string(),
            file_bytes: options.model.as_ref().and_then(|path| Some(path.metadata().ok()?.len())),
            load_seconds: loaded.time.as_secs_f64(),
            peak_rss_bytes: memory::peak_rss_bytes(),
            anonymous_bytes: held.map(|held| held.anonymous_bytes),
            mapped_bytes: held.map(|held| held.mapped_bytes),
        };
        write_line(&footprint, out)?;
    }
    Ok(())
}

fn arguments(options: &Options, case: &Case, backend: &str) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--memory".into(), "--alone".into()];
    let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    add("--backend", backend.into());
    if let Some(model) = &options.model {
        add("--model", model.into());
    }
    if let Some(device) = &options.device {
        add("--device", device.into());
    }
    let (name, value) = case.prompt.argument();
    add(name, value.into());
    let numbers = [
        ("--generate", Some(case.generate)),
        ("--parallel", Some(case.parallel)),
        ("--threads", Some(options.threads().get())),
        ("--rounds", Some(1)),
        ("--batch", Some(options.batch)),
        ("--prefill-chunk", Some(options.prefill_chunk)),
        ("--context", options.context),
        ("--kv-tokens", options.kv_tokens),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            add(name, value.to_string().into());
        }
    }
    let kv = &options.kv;
    for (name, value) in
        [("--kv", &kv.kv), ("--kv-layout", &kv.kv_layout), ("--flash-attention", &kv.flash_attention)]
    {
        if let Some(value) = value {
            add(name, value.into());
        }
    }
    add("--kv-mib", options.kv_mib.to_string().into());
    add("--seed", options.seed.to_string().into());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_process_of_its_own_gets_the_same_case() {
        let line = "throughput --memory --backend scripted,candle --model F --ragged 3,9 --parallel 4 --generate 7 \
                    --threads 3 --context 100 --kv-mib 9 --kv f16 --seed 5 --device cpu";
        let options = Options::try_parse_from(line.split_whitespace()).unwrap();
        let case = Case::all(&options)[0];
        let arguments = arguments(&options, &case, "candle");
        let child = Options::try_parse_from(std::iter::once("throughput".into()).chain(arguments)).unwrap();
        assert!(child.alone);
        assert_eq!(child.backend, ["candle"]);
        assert_eq!(Case::all(&child), [case]);
        assert_eq!((child.context, child.kv_mib, child.seed), (Some(100), 9, 5));
        assert_eq!(child.kv.kv.as_deref(), Some("f16"));
        assert_eq!((child.threads().get(), child.device.as_deref()), (3, Some("cpu")));
    }
}
