//! A cache in a folder: lookups, isolation, and removal of entries.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use exsa_cache::{CacheError, CacheKey, CacheNotice, PromptCache};
use exsa_core::prompt_cache::{EntryId, PromptKey, PromptStore, SavedPrompt};
use std::fs::{self, File};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use support::{Folder, MODEL, entry, key, put, record, tokens};

#[test]
fn entries_are_found_by_their_longest_prefix_after_a_restart() {
    let folder = Folder::new("prefix");
    let cache = folder.open();
    let (long, short) = (tokens(1, 1000), tokens(2, 200));
    put(&cache, &key(&long), 5000);
    put(&cache, &key(&short), 1000);
    drop(cache);
    let cache = folder.open();
    let find = |tokens: &[u32], whole| cache.find(&key(tokens), whole).map(|found| found.tokens);
    for (tokens, whole, expected) in [
        (long.clone(), false, Some(1000)),
        ([long.as_slice(), &short].concat(), false, Some(1000)),
        ([long.as_slice(), &short].concat(), true, Some(1000)),
        (long[..999].to_vec(), false, Some(960)),
        (long[..999].to_vec(), true, None),
        ([&long[..300], &short].concat(), false, Some(256)),
        (long[..63].to_vec(), false, None),
        ([&[7], long.as_slice()].concat(), false, None),
        (short.clone(), true, Some(200)),
        (Vec::new(), false, None),
    ] {
        assert_eq!(find(&tokens, whole), expected, "{} tokens, whole: {whole}", tokens.len());
    }
    let found = cache.find(&key(&long), false).unwrap();
    assert_eq!(cache.record(found.entry).unwrap(), record(&long, 5000));
    assert_eq!(cache.stats().entries, 2);
}

#[test]
fn models_adapters_and_salts_are_kept_apart() {
    let folder = Folder::new("apart");
    let cache = folder.open();
    let tokens = tokens(1, 128);
    let other = exsa_core::backend::Fingerprint(1);
    let keys = [
        key(&tokens),
        PromptKey::new(other, &tokens),
        key(&tokens).adapter("a"),
        key(&tokens).salt("a"),
        key(&tokens).salt(""),
        key(&tokens).adapter("a").salt("b"),
        key(&tokens).adapter("ab"),
    ];
    for (written, key) in keys.iter().enumerate() {
        let found = keys.iter().filter(|key| entry(&cache, key).is_some()).count();
        assert_eq!(found, written);
        put(&cache, key, 100);
    }
    let ids: std::collections::HashSet<_> = keys.iter().map(|key| entry(&cache, key).unwrap()).collect();
    assert_eq!(ids.len(), keys.len());
}

#[test]
fn a_longer_entry_takes_the_place_of_those_within_unless_sessions_need_whole_ones() {
    for (truncates, left) in [(true, vec![300]), (false, vec![100, 200, 300])] {
        let folder = Folder::new("within");
        let cache = folder.open();
        let tokens = tokens(1, 300);
        for len in [100, 200, 300] {
            cache.write(SavedPrompt::new(&key(&tokens[..len]), record(&tokens, 50)).truncates(truncates));
            assert!(cache.flush(support::PATIENCE));
        }
        let mut lengths: Vec<_> = cache.list().iter().map(|entry| entry.tokens).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, left);
        let found = cache.find(&key(&tokens[..250]), true).map(|found| found.tokens);
        assert_eq!(found, (!truncates).then_some(200));
    }
}

#[test]
fn the_least_recently_used_entries_go_and_pinned_ones_stay() {
    let folder = Folder::new("room");
    // Three entries of about 10 kB.
    let cache = PromptCache::open(folder.options().bytes_max(35_000)).unwrap();
    let prompts: Vec<_> = (0..6).map(|seed| tokens(seed, 64)).collect();
    put(&cache, &key(&prompts[0]), 10_000);
    let pinned = entry(&cache, &key(&prompts[0])).unwrap();
    cache.pin(pinned, true).unwrap();
    for prompt in &prompts[1..] {
        std::thread::sleep(Duration::from_millis(5));
        put(&cache, &key(prompt), 10_000);
    }
    let there: Vec<_> = prompts.iter().map(|prompt| entry(&cache, &key(prompt)).is_some()).collect();
    assert_eq!(there, [true, false, false, false, true, true]);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.pinned, stats.evicted), (3, 1, 3));
    assert!(stats.bytes <= 35_000);
    // Pins survive a restart, and can be removed.
    drop(cache);
    let cache = PromptCache::open(folder.options().bytes_max(12_000)).unwrap();
    assert_eq!(
        cache.list().iter().map(|entry| (entry.id, entry.pinned)).collect::<Vec<_>>(),
        [(pinned, true)]
    );
    cache.pin(pinned, false).unwrap();
    drop(cache);
    let cache = PromptCache::open(folder.options().bytes_max(9_000)).unwrap();
    assert_eq!(cache.stats().entries, 0);
    assert!(matches!(cache.pin(pinned, true), Err(CacheError::Unknown(_))));
    assert_eq!(folder.files(), Vec::<String>::new());
}

#[test]
fn old_entries_go() {
    let folder = Folder::new("age");
    let cache = folder.open();
    let prompts = [tokens(1, 64), tokens(2, 64), tokens(3, 64)];
    prompts.iter().for_each(|prompt| put(&cache, &key(prompt), 100));
    let ids = prompts.each_ref().map(|prompt| entry(&cache, &key(prompt)).unwrap());
    cache.pin(ids[2], true).unwrap();
    drop(cache);
    let month_ago = SystemTime::now() - Duration::from_secs(31 * 24 * 3600);
    for id in [ids[0], ids[2]] {
        let file = File::options().write(true).open(folder.path().join(format!("{id}.kv"))).unwrap();
        file.set_modified(month_ago).unwrap();
    }
    let cache = folder.open();
    let left: Vec<_> = ids.map(|id| cache.list().iter().any(|entry| entry.id == id)).into();
    assert_eq!(left, [false, true, true], "pins have no age");
    assert_eq!(cache.stats().expired, 1);
}

#[test]
fn damaged_files_are_removed_and_told() {
    let folder = Folder::new("damage");
    let cache = folder.open();
    let prompts: Vec<_> = (0..4).map(|seed| tokens(seed, 64)).collect();
    prompts.iter().for_each(|prompt| put(&cache, &key(prompt), 3000));
    let ids: Vec<_> = prompts.iter().map(|prompt| entry(&cache, &key(prompt)).unwrap()).collect();
    drop(cache);
    let path = |id: EntryId| folder.path().join(format!("{id}.kv"));
    // Torn, altered in the index, altered in the record, and named as another.
    let bytes = fs::read(path(ids[0])).unwrap();
    fs::write(path(ids[0]), &bytes[..1000]).unwrap();
    let alter = |id: EntryId, at: usize| {
        let mut bytes = fs::read(path(id)).unwrap();
        bytes[at] ^= 1;
        fs::write(path(id), bytes).unwrap();
    };
    alter(ids[1], 100);
    alter(ids[2], 2000);
    let false_name = EntryId([3; 16]);
    fs::copy(path(ids[3]), path(false_name)).unwrap();
    fs::write(folder.path().join("notes.txt"), "of someone else").unwrap();

    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let options = folder.options().on_notice(move |notice| hears.lock().unwrap().push(notice.to_string()));
    let cache = PromptCache::open(options).unwrap();
    assert_eq!((cache.stats().entries, cache.stats().damaged), (2, 3));
    // Damage in a record is only found by reading it.
    assert!(cache.record(ids[2]).unwrap_err().to_string().contains("the tag of a block does not match"));
    assert_eq!(cache.record(ids[3]).unwrap(), record(&prompts[3], 3000));
    let heard = heard.lock().unwrap().join("\n");
    for words in [ids[0].to_string(), ids[1].to_string(), false_name.to_string(), "another entry".to_owned()]
    {
        assert!(heard.contains(&words), "{words}: {heard}");
    }
    assert!(folder.files().contains(&"notes.txt".to_owned()), "files of others stay");
}

#[test]
fn two_caches_share_a_folder() {
    let folder = Folder::new("shared");
    let (one, two) = (folder.open(), folder.open());
    let prompt = tokens(1, 200);
    put(&one, &key(&prompt), 1000);
    assert_eq!(entry(&two, &key(&prompt)), None, "not read again yet");
    two.refresh().unwrap();
    let id = entry(&two, &key(&prompt)).unwrap();
    assert_eq!(two.record(id).unwrap(), record(&prompt, 1000));
    // A pin by one cache applies to the other, even before it scans the folder.
    one.pin(id, true).unwrap();
    let small = PromptCache::open(folder.options().bytes_max(10)).unwrap();
    assert_eq!(small.stats().entries, 1);
    // Both write the same entry; removal by one does not harm the other.
    let prompt = tokens(2, 200);
    put(&one, &key(&prompt), 1000);
    put(&two, &key(&prompt), 1000);
    let id = entry(&two, &key(&prompt)).unwrap();
    assert!(one.remove(id) && !one.remove(id));
    assert!(matches!(two.record(id), Err(CacheError::Unknown(_))));
    two.refresh().unwrap();
    assert_eq!(entry(&two, &key(&prompt)), None);
}

#[test]
fn files_of_another_key_are_left_alone_but_take_room() {
    let folder = Folder::new("keys");
    let prompt = tokens(1, 200);
    let open = |key: Option<u8>| {
        PromptCache::open(folder.options().key(key.map(|byte| CacheKey::new([byte; 32])))).unwrap()
    };
    put(&open(Some(1)), &key(&prompt), 1000);
    let names = folder.files();
    for other in [Some(2), None] {
        let cache = open(other);
        assert_eq!(entry(&cache, &key(&prompt)), None);
        assert_eq!((cache.stats().entries, cache.stats().damaged), (1, 0));
        assert_eq!(cache.list()[0].fingerprint, None);
    }
    let cache = open(Some(1));
    let id = entry(&cache, &key(&prompt)).unwrap();
    assert_eq!(cache.record(id).unwrap(), record(&prompt, 1000));
    // Names and contents with another key do not reveal equal prompts.
    put(&open(Some(2)), &key(&prompt), 1000);
    assert_eq!(folder.files().iter().filter(|name| names.contains(name)).count(), 1);
    drop(cache);
    let small = PromptCache::open(folder.options().bytes_max(10)).unwrap();
    assert_eq!(small.stats().entries, 0, "room is made of files of any key");
}

#[test]
fn entries_are_exported_and_imported() {
    let (from, to) = (Folder::new("export"), Folder::new("import"));
    let (source, target) = (from.open(), to.open());
    let prompt = tokens(1, 200);
    put(&source, &key(&prompt), 1000);
    let id = entry(&source, &key(&prompt)).unwrap();
    let mut bytes = Vec::new();
    source.export(id, &mut bytes).unwrap();
    assert_eq!(target.import(&mut bytes.as_slice()).unwrap(), id);
    assert_eq!(entry(&target, &key(&prompt)), Some(id));
    assert_eq!(target.record(id).unwrap(), record(&prompt, 1000));
    let refused = |bytes: &[u8]| target.import(&mut &*bytes).unwrap_err().to_string();
    assert!(refused(&bytes[..bytes.len() - 1]).contains("length"));
    assert!(
        refused(b"no entry at all, but more than a header of 64 bytes, which it ends before")
            .contains("EXSA-PC")
    );
    bytes[500] ^= 1;
    assert!(refused(&bytes).contains("tag"));
    assert!(matches!(source.export(EntryId([1; 16]), &mut Vec::new()), Err(CacheError::Unknown(_))));
}

#[test]
fn an_entry_that_is_too_large_is_refused_once_in_words() {
    let folder = Folder::new("large");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let options =
        folder.options().bytes_max(5000).on_notice(move |notice| hears.lock().unwrap().push(notice.clone()));
    let cache = PromptCache::open(options).unwrap();
    assert_eq!(cache.buffer(6000, Duration::ZERO), None);
    for seed in 0..3 {
        let prompt = tokens(seed, 64);
        cache.write(SavedPrompt::new(&key(&prompt), record(&prompt, 6000)));
    }
    assert!(cache.flush(support::PATIENCE));
    let heard = heard.lock().unwrap();
    assert!(matches!(heard[..], [CacheNotice::TooLarge { allowed: 5000, .. }]), "{heard:?}");
    assert_eq!(folder.files(), Vec::<String>::new());
}

#[test]
#[cfg(unix)]
fn folders_that_cannot_be_used_are_refused_in_words() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("rights");
    let cache = folder.open();
    put(&cache, &key(&tokens(1, 64)), 100);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.path()), 0o700);
    let file = folder.path().join(&folder.files()[0]);
    assert_eq!(mode(&file), 0o600);
    drop(cache);
    let refused = |path: &std::path::Path| {
        PromptCache::open(exsa_cache::CacheOptions::new(path)).unwrap_err().to_string()
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(refused(folder.path()).contains("its mode is 0755, but must be 0700"));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = refused(&file);
    assert!(error.contains("cannot be created") && error.contains(&file.display().to_string()), "{error}");
    assert!(refused("/proc/exsa-cache".as_ref()).contains("cannot be created"));
}

#[test]
fn records_that_are_refused_by_an_engine_are_gone() {
    let folder = Folder::new("refused");
    let cache = folder.open();
    let prompt = tokens(1, 64);
    put(&cache, &key(&prompt), 100);
    let id = entry(&cache, &key(&prompt)).unwrap();
    PromptStore::refused(&cache, id, "of another backend");
    assert_eq!(entry(&cache, &key(&prompt)), None);
    drop(cache);
    assert_eq!(folder.files(), Vec::<String>::new());
    assert_eq!(MODEL, key(&prompt).fingerprint);
}
