//! `exsa pull`: downloads models.

use crate::args::PullArgs;
use crate::error::CliError;
use crate::hub;
use crate::output::{bytes, visible};
use exsa_hub::{Cancel, Hub, Phase, Progress, Pulled, Rate, Source};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};

/// Runs the command.
pub(crate) fn pull(args: &PullArgs) -> Result<(), CliError> {
    let sources = args.sources.iter().map(|text| text.parse()).collect::<Result<Vec<Source>, _>>()?;
    let (hub, cancel) = (hub::hub(args)?, Cancel::new());
    let stop = cancel.clone();
    ctrlc::set_handler(move || stop.cancel()).map_err(|error| CliError::Other(format!("Ctrl-C: {error}")))?;
    let mut out = std::io::stdout().lock();
    for source in &sources {
        let pulled = fetch(&hub, source, &cancel)?;
        match args.json {
            true => writeln!(out, "{}", as_json(source, &pulled))?,
            false => writeln!(out, "{}", pulled.model.display())?,
        }
        out.flush()?;
    }
    Ok(())
}

/// Downloads a model, with a progress bar on a terminal.
pub(crate) fn fetch(hub: &Hub, source: &Source, cancel: &Cancel) -> Result<Pulled, CliError> {
    let mut bar = Bar::new();
    let pulled = hub.pull(source, cancel, &mut |progress| bar.show(progress));
    bar.end();
    Ok(pulled.inspect_err(|error| {
        if matches!(error, exsa_hub::HubError::Cancelled) {
            eprintln!("exsa: stopped; run the same command to continue");
        }
    })?)
}

fn as_json(source: &Source, pulled: &Pulled) -> serde_json::Value {
    json!({
        "source": source.to_string(),
        "model": pulled.model,
        "projector": pulled.projector,
        "files": pulled.files,
    })
}

/// Progress bar with speed and remaining time. If standard error is not a terminal, prints one line per file
/// instead.
struct Bar {
    bar: ProgressBar,
    rate: Rate,
    /// The file and phase on display.
    shown: Option<(usize, Phase)>,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, rate: Rate::new(), shown: None }
    }

    fn show(&mut self, progress: &Progress<'_>) {
        let now = (progress.index, progress.phase);
        if self.shown != Some(now) {
            self.begin(progress);
            self.shown = Some(now);
        }
        self.rate.record(Instant::now(), progress.bytes);
        if let Some(total) = progress.total {
            self.bar.set_length(total);
        }
        self.bar.set_position(progress.bytes);
        let speed = self.rate.bytes_per_second().filter(|_| progress.phase == Phase::Downloading);
        let left = progress.total.and_then(|total| self.rate.time_left(progress.bytes, total));
        let speed = speed.map_or(String::new(), |speed| format!("{}/s", bytes(speed as u64)));
        self.bar.set_message(format!("{speed} {}", left.map_or(String::new(), time)));
    }

    /// Starts the display of a file or a phase.
    fn begin(&mut self, progress: &Progress<'_>) {
        let number = if progress.files > 1 {
            format!(" ({}/{})", progress.index + 1, progress.files)
        } else {
            String::new()
        };
        let name = visible(progress.file);
        if self.shown.is_none_or(|(index, _)| index != progress.index) {
            self.bar.suspend(|| eprintln!("{name}{number}"));
        }
        self.rate = Rate::new();
        let stage = match progress.phase {
            Phase::Waiting => "another process is downloading it",
            Phase::Verifying => "verifying",
            _ => "",
        };
        // Fits into 80 columns.
        let template = format!("{{bar:24}} {{bytes:>11}}/{{total_bytes:11}} {{msg}} {stage}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            self.bar.set_style(style);
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Formats a remaining time: `1:05:09`, `5:09`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02} left"),
        _ => format!("{hours}:{minutes:02}:{seconds:02} left"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        assert_eq!(time(Duration::from_secs(9)), "0:09 left");
        assert_eq!(time(Duration::from_secs(3909)), "1:05:09 left");
    }
}
