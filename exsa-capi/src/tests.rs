//! Parts that a program in C does not reach; `tests/api.c` has the others.
#![allow(clippy::unwrap_used, reason = "failures of tests")]

use crate::args;
use crate::error::{
    ExsaStatus, Failure, c_text, exsa_last_error, exsa_last_error_status, guard, guard_pointer,
};
use std::collections::BTreeSet;
use std::ffi::CStr;

/// Files of the library that have exported functions.
const SOURCES: [&str; 6] = [
    include_str!("answer.rs"),
    include_str!("engine.rs"),
    include_str!("error.rs"),
    include_str!("options.rs"),
    include_str!("request.rs"),
    include_str!("version.rs"),
];

const HEADER: &str = include_str!("../include/exsa.h");

fn last_error() -> String {
    // SAFETY: the text is valid until the thread's next failure.
    unsafe { CStr::from_ptr(exsa_last_error()) }.to_str().unwrap().into()
}

#[test]
fn a_panic_becomes_a_status() {
    assert_eq!(guard(|| panic!("of {}", 3)), ExsaStatus::Panic);
    assert_eq!(last_error(), "the library panicked: of 3");
    assert_eq!(exsa_last_error_status(), ExsaStatus::Panic);
    assert!(guard_pointer::<u8>(|| panic!("again")).is_null());
    assert_eq!(guard(|| std::panic::panic_any(7)), ExsaStatus::Panic);
    assert_eq!(last_error(), "the library panicked: no message");
}

#[test]
fn success_keeps_the_last_error_and_threads_have_their_own() {
    guard(|| Err(Failure::argument("too many")));
    assert_eq!(guard(|| Ok(ExsaStatus::Pending)), ExsaStatus::Pending);
    assert_eq!((exsa_last_error_status(), last_error().as_str()), (ExsaStatus::InvalidArgument, "too many"));
    let other = std::thread::spawn(|| (exsa_last_error_status(), last_error())).join().unwrap();
    assert_eq!(other, (ExsaStatus::Ok, String::new()));
}

#[test]
fn messages_are_not_cut_at_a_nul() {
    assert_eq!(c_text("a\0b".into()).to_str().unwrap(), "a\u{fffd}b");
}

#[test]
fn lengths_beyond_memory_are_refused() {
    let one = 1u32;
    // SAFETY: the length is refused before anything is read.
    let failed = unsafe { args::array(&raw const one, usize::MAX / 2, "tokens") }.unwrap_err();
    assert_eq!(guard(|| Err(failed)), ExsaStatus::InvalidArgument);
    assert!(last_error().starts_with("tokens has "), "{}", last_error());
    // SAFETY: the alignment is refused before anything is read.
    let failed =
        unsafe { args::array((&raw const one).cast::<u8>().add(1).cast::<u32>(), 1, "ids") }.unwrap_err();
    guard(|| Err(failed));
    assert_eq!(last_error(), "ids is not aligned for its type");
}

#[test]
fn the_header_declares_what_the_library_exports() {
    let sources = SOURCES.concat();
    let exported: BTreeSet<&str> =
        sources.split("extern \"C\" fn ").skip(1).filter_map(|rest| rest.split('(').next()).collect();
    let exported: BTreeSet<&str> = exported.into_iter().filter(|name| name.starts_with("exsa_")).collect();
    let declared: BTreeSet<&str> = HEADER
        .match_indices("exsa_")
        .filter_map(|(at, _)| HEADER[at..].split_once('(').map(|(name, _)| name))
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    assert!(exported.len() > 40, "{exported:?}");
    assert_eq!(exported, declared);
}

#[test]
fn the_header_has_the_version_of_the_interface() {
    let version = crate::version::exsa_abi_version();
    assert!(HEADER.contains(&format!("#define EXSA_ABI_VERSION {version}\n")));
}
