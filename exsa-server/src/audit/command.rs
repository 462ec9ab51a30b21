//! The subcommand `audit` of the binary.

use super::checkpoint::{PublicKey, SigningKey};
use super::folder::{is_log_file, private};
use super::verify::{Verifier, VerifyOptions};
use clap::Subcommand;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// Commands on audit logs.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum AuditCommand {
    /// Verify a log: find altered, missing, reordered, repeated and truncated lines
    Verify {
        /// Checkpoints of a second place, which are required to detect truncation
        #[arg(long, value_name = "FILE")]
        checkpoints: Option<PathBuf>,
        /// Public key (a file of `audit keygen`) with which checkpoints must be signed; repeatable
        #[arg(long, value_name = "FILE")]
        public_key: Vec<PathBuf>,
        /// Accept a log whose first files are absent
        #[arg(long)]
        partial: bool,
        /// Files of the log in order, or its folder
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Create an Ed25519 key for checkpoints: FILE (PKCS#8, PEM) and FILE.pub (its public key in hexadecimal)
    Keygen {
        /// File of the new key; it must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Runs a command. Findings go to standard output; the exit code is 1 if there are findings, 2 after an
/// error.
pub fn run(command: &AuditCommand) -> ExitCode {
    let done = match command {
        AuditCommand::Verify { checkpoints, public_key, partial, files } => {
            verify(checkpoints.as_deref(), public_key, *partial, files)
        }
        AuditCommand::Keygen { file } => generate(file).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("exsa-server: {error}");
            ExitCode::from(2)
        }
    }
}

fn verify(
    checkpoints: Option<&Path>,
    public_keys: &[PathBuf],
    partial: bool,
    files: &[PathBuf],
) -> Result<bool, String> {
    let mut options = VerifyOptions::default().partial(partial);
    for path in public_keys {
        let text = fs::read_to_string(path).map_err(|error| at(path, error))?;
        let key = PublicKey::read(&text);
        options =
            options.key(key.ok_or_else(|| at(path, "a public key has 64 lower-case hexadecimal digits"))?);
    }
    let signatures = !options.keys.is_empty();
    let mut out = io::stdout().lock();
    let report = |finding| {
        // A closed pipe must not end the command: the exit code is what counts.
        drop(writeln!(out, "{finding}"));
    };
    let second = checkpoints.map(open).transpose()?;
    let mut verifier = Verifier::new(options, second, report);
    for path in files {
        for path in expand(path)? {
            verifier.file(&path.display().to_string(), open(&path)?).map_err(|error| at(&path, error))?;
        }
    }
    let summary = verifier.end().map_err(|error| error.to_string())?;
    let (lines, first, last) = (summary.lines, summary.first, summary.last);
    println!(
        "{lines} lines ({first} to {last}), {} checkpoints, {} findings",
        summary.checkpoints, summary.findings
    );
    match signatures {
        true => println!(
            "signed up to line {}; the {} after it are not",
            summary.signed,
            last - summary.signed.min(last)
        ),
        false => println!("signatures were not checked: no --public-key"),
    }
    if checkpoints.is_none() {
        println!("truncation cannot be seen without --checkpoints");
    }
    Ok(summary.findings == 0)
}

/// Returns the files of a log: for a folder, those with the names of a log, in order.
fn expand(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let names = entries.map_err(|error| at(path, error))?.into_iter().map(|entry| entry.file_name());
    let mut files: Vec<_> = names.filter(|name| is_log_file(&name.to_string_lossy())).collect();
    files.sort_unstable();
    Ok(files.into_iter().map(|name| path.join(name)).collect())
}

fn open(path: &Path) -> Result<BufReader<File>, String> {
    let file = File::open(path).map_err(|error| at(path, error))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

fn generate(path: &Path) -> Result<(), String> {
    let key = SigningKey::generate()?;
    let (pem, public) = (key.pem()?, key.public());
    let mut file = private().write(true).create_new(true).open(path).map_err(|error| at(path, error))?;
    file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| at(path, error))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    let name = PathBuf::from(name);
    fs::write(&name, format!("{public}\n")).map_err(|error| at(&name, error))?;
    println!("{}: key {}, public key {public} in {}", path.display(), public.id(), name.display());
    Ok(())
}

fn at(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
