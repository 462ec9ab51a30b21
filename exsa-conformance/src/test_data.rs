//! Models that the project cannot ship: tests look for them in a folder, and are skipped if they are missing.
//!
//! The folder is named by the environment variable `EXSA_TEST_DATA`; without
//! it, it is `shared` beside the checkout of the project.

use std::path::PathBuf;

/// Path of `name` in the folder `models`; `None`, with the reason on standard error, if it is absent.
pub fn model(name: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let root = std::env::var_os("EXSA_TEST_DATA").map_or_else(beside, PathBuf::from);
    let path = root.join("models").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there; set EXSA_TEST_DATA to the folder of test data", path.display());
    None
}
