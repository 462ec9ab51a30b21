//! Recovery: the end of the chain in the files that a process left.

use super::chain::{Chain, Link};
use super::folder::{Folder, LogFile, file_name, is_log_file};
use super::hash::Hash;
use super::lines::{Line, Lines};
use super::record::{Act, Record};
use std::io::{self, BufReader, Read};
use std::time::SystemTime;

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// End of the chain.
    pub(super) chain: Chain,
    /// The file to go on with and its length; `None` begins a new one.
    pub(super) file: Option<(String, u64)>,
    /// Time of that file's first line.
    pub(super) begun: Option<SystemTime>,
    /// Records of the repair.
    pub(super) records: Vec<Record>,
}

/// Finds the end of the chain and cuts off an incomplete end, whose bytes are kept in a file beside the log.
///
/// Lines that do not follow from each other are left as they are, so that a verification finds them later
/// too; the chain then goes on in a new file.
///
/// # Errors
///
/// A file cannot be read or cut.
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

/// A file's lines in summary.
#[derive(Debug, Default)]
struct Scan {
    /// Bytes of the file.
    len: u64,
    /// Bytes up to the end of the last line that can be read.
    good: u64,
    /// That line.
    last: Option<Chain>,
    /// Time of the first line that can be read.
    begun: Option<SystemTime>,
    /// Number of the first line in front of it that cannot be read or does not follow from the one before.
    damage: Option<u64>,
}

fn scan(file: impl Read) -> io::Result<Scan> {
    let mut lines = Lines::new(BufReader::with_capacity(1 << 16, file));
    let mut scan = Scan::default();
    // A damaged line counts once a whole one follows it: at the end it is what a crash leaves.
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

/// Cuts off the end of a file after its last whole line, and keeps a copy.
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

/// The name of the file for the line after the end of `chain`.
pub(super) fn next_file(chain: Chain) -> String {
    file_name(chain.count + 1)
}
