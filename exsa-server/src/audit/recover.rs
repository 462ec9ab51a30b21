//! Recovery: finds the end of the chain in existing files.

use super::chain::{Chain, Link};
use super::folder::{Folder, LogFile, file_name, is_log_file};
use super::hash::Hash;
use super::lines::{Line, Lines};
use super::record::{Act, Record};
use std::io::{self, BufReader, Read};
use std::time::SystemTime;

/// State of an existing log.
#[derive(Debug)]
pub(super) struct Recovered {
    /// End of the chain.
    pub(super) chain: Chain,
    /// The file to continue, and its length; `None` begins a new one.
    pub(super) file: Option<(String, u64)>,
    /// Time of that file's first line.
    pub(super) begun: Option<SystemTime>,
    /// Records of the repair.
    pub(super) records: Vec<Record>,
}

/// Finds the end of the chain and truncates an incomplete end, whose bytes are kept in a file beside the log.
///
/// Lines that break the chain are left as they are, so that a verification still finds them later; the chain
/// then continues in a new file.
///
/// # Errors
///
/// A file cannot be read or truncated.
pub(super) fn recover(folder: &impl Folder) -> io::Result<Recovered> {
    let mut names: Vec<_> = folder.list()?.into_iter().filter(|name| is_log_file(name)).collect();
    names.sort_unstable();
    let mut recovered = Recovered { chain: Chain::EMPTY, file: None, begun: None, records: Vec::new() };
    for name in names.iter().rev() {
        let scan = scan(folder.read(name)?)?;
        if scan.good < scan.len {
            recovered.records.push(cut(folder, name, &scan)?);
        }
        if let Some(line) = scan.damage {
            let detail = format!("line {line} of {name} does not follow from the line before it");
            recovered.records.push(Record::new(Act::DamageFound).detail(detail));
        }
        if let Some(chain) = scan.last {
            (recovered.chain, recovered.begun) = (chain, scan.begun);
            let intact = scan.damage.is_none() && Some(name) == names.last();
            recovered.file = intact.then(|| (name.clone(), scan.good));
            break;
        }
    }
    Ok(recovered)
}

/// Summary of a file's lines.
#[derive(Debug, Default)]
struct Scan {
    /// Bytes of the file.
    len: u64,
    /// Bytes up to the end of the last readable line.
    good: u64,
    /// That line.
    last: Option<Chain>,
    /// Time of the first readable line.
    begun: Option<SystemTime>,
    /// Number of the first line before it that is unreadable or breaks the chain.
    damage: Option<u64>,
}

fn scan(file: impl Read) -> io::Result<Scan> {
    let mut lines = Lines::new(BufReader::with_capacity(1 << 16, file));
    let mut scan = Scan::default();
    // A damaged line only counts if a whole one follows; at the end it is the result of a crash.
    let mut suspect = None;
    while let Some(line) = lines.next()? {
        let read = match line {
            Line::Whole(bytes) => Link::read(bytes).ok().map(|link| (link, Hash::of(bytes))),
            Line::TooLong | Line::Torn(_) => None,
        };
        let number = lines.number;
        match read {
            Some((link, hash)) => {
                let follows = |last: Chain| link.seq == last.count + 1 && link.prev == last.last;
                let broken = suspect.or((!scan.last.is_none_or(follows)).then_some(number));
                scan.damage = scan.damage.or(broken);
                scan.begun = scan.begun.or_else(|| humantime::parse_rfc3339(&link.time).ok());
                scan.last = Some(Chain { count: link.seq, last: hash });
                scan.good = lines.offset;
                suspect = None;
            }
            None => suspect = suspect.or(Some(number)),
        }
    }
    scan.len = lines.offset;
    Ok(scan)
}

/// Truncates a file after its last whole line, and keeps a copy of the rest.
fn cut(folder: &impl Folder, name: &str, scan: &Scan) -> io::Result<Record> {
    let mut file = folder.read(name)?;
    io::copy(&mut (&mut file).take(scan.good), &mut io::sink())?;
    let copy = format!("{name}.torn-{}", scan.good);
    let mut kept = folder.create(&copy)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => kept.append(&buffer[..read])?,
        }
    }
    kept.sync()?;
    let mut log = folder.open(name)?;
    log.truncate(scan.good)?;
    log.sync()?;
    let bytes = scan.len - scan.good;
    let detail = format!("{bytes} bytes of an incomplete line at the end of {name} were moved to {copy}");
    Ok(Record::new(Act::Repaired).detail(detail))
}

/// Returns the name of the file for the line after the end of `chain`.
pub(super) fn next_file(chain: Chain) -> String {
    file_name(chain.count + 1)
}
