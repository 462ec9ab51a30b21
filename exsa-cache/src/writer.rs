//! The writing thread, which writes records to files, removes entries and scans the folder.

use crate::CacheNotice;
use crate::format::EntryFile;
use crate::seal::{NONCE_BYTES, random};
use crate::shared::{ENTRY, Shared, State};
use exsa_core::prompt_cache::{EntryId, SavedPrompt};
use std::time::{Duration, Instant, SystemTime};

/// A job of the thread.
enum Job {
    Write(Box<SavedPrompt>),
    Remove(EntryId, String),
    Scan,
    Stop,
}

/// Runs until the cache is dropped and the queue is empty.
pub(crate) fn run(shared: &Shared) {
    let mut scanned = Instant::now();
    loop {
        match next(shared, scanned) {
            Job::Write(prompt) => write(shared, *prompt),
            Job::Remove(id, problem) => {
                shared.remove(id);
                shared.state.lock().stats.damaged += 1;
                shared.tell(&CacheNotice::Refused { entry: id, problem });
            }
            Job::Scan => {
                shared.state.lock().buffers.clear();
                if let Err(error) = shared.scan() {
                    shared.tell(&CacheNotice::Unlisted { problem: error.to_string() });
                }
                scanned = Instant::now();
            }
            Job::Stop => return,
        }
    }
}

fn next(shared: &Shared, scanned: Instant) -> Job {
    let mut state = shared.state.lock();
    loop {
        if let Some((id, problem)) = state.refused.pop() {
            return Job::Remove(id, problem);
        }
        if let Some(prompt) = state.queue.pop_front() {
            state.is_writing = true;
            return Job::Write(Box::new(prompt));
        }
        if state.is_stopping {
            return Job::Stop;
        }
        let due = shared.scan_interval.saturating_sub(scanned.elapsed());
        if due.is_zero() {
            return Job::Scan;
        }
        // At most a year, which any clock can represent.
        shared.to_write.wait_for(&mut state, due.min(Duration::from_secs(365 * 24 * 3600)));
    }
}

fn write(shared: &Shared, prompt: SavedPrompt) {
    let notice = write_entry(shared, &prompt);
    let mut state = shared.state.lock();
    state.is_writing = false;
    if state.buffers.len() < shared.queue_max {
        state.buffers.push(prompt.record);
    }
    drop(state);
    shared.written.notify_all();
    if let Some(notice) = notice {
        shared.tell(&notice);
    }
}

/// Writes an entry and removes those that it contains.
fn write_entry(shared: &Shared, prompt: &SavedPrompt) -> Option<CacheNotice> {
    let key = prompt.key();
    let root = shared.chains.root(&key);
    let links: Vec<_> = shared.chains.links(root, &prompt.tokens).collect();
    // An entry without a whole block cannot be found.
    let id = shared.chains.entry(*links.last()?, &prompt.tokens);
    let file = EntryFile::new(id, prompt, root, &links);
    let bytes = file.bytes(prompt.record.len() as u64);
    let mut state = shared.state.lock();
    if state.index.get(id).is_some() {
        state.index.touch(id, SystemTime::now());
        return None;
    }
    let allowed = shared.bytes_max.saturating_sub(state.index.pinned_bytes());
    if bytes > allowed {
        let told = std::mem::replace(&mut state.told_too_large, true);
        return (!told).then_some(CacheNotice::TooLarge { bytes, allowed });
    }
    drop(state);
    shared.make_room(bytes);
    let mut nonce = [0; NONCE_BYTES];
    let written = random(&mut nonce).and_then(|()| {
        shared.write_file(&format!("{id}{ENTRY}"), |to| file.write(&prompt.record, nonce, &shared.sealer, to))
    });
    if let Err(error) = written {
        let mut state = shared.state.lock();
        state.stats.write_failures += 1;
        state.suspended = Some(Instant::now() + shared.retry);
        // The waiting records would fail as well.
        let given_up: Vec<_> = state.queue.drain(..).collect();
        drop(state);
        drop(given_up);
        return Some(CacheNotice::WritingSuspended { problem: error.to_string(), retry: shared.retry });
    }
    shared.add(file, bytes);
    let mut state = shared.state.lock();
    let State { index, stats, suspended, .. } = &mut *state;
    stats.writes += 1;
    stats.written_bytes += bytes;
    let resumed = suspended.take().is_some();
    let mut within = if prompt.truncates { index.within(&shared.chains, &key) } else { Vec::new() };
    within.retain(|other| {
        let removable = |entry: &crate::index::Entry| {
            !entry.pinned && entry.file.as_ref().is_some_and(|file| file.truncates)
        };
        *other != id && index.get(*other).is_some_and(removable)
    });
    drop(state);
    within.into_iter().for_each(|other| shared.remove(other));
    resumed.then_some(CacheNotice::WritingResumed)
}
