//! Runs tests in a program that is its own worker: with the standard harness, `main` is not ours.

use std::panic::catch_unwind;
use std::process::exit;

pub type Test = (&'static str, fn());

/// Runs the tests that the arguments choose, or lists them, as the standard harness does.
pub fn run(tests: &[Test]) {
    let (mut filters, mut skipped, mut exact, mut list, mut ignored) =
        (Vec::new(), Vec::new(), false, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--exact" => exact = true,
            "--list" => list = true,
            "--ignored" => ignored = true,
            "--skip" => skipped.extend(arguments.next()),
            "--format" | "--test-threads" | "--color" | "-Z" => _ = arguments.next(),
            flag if flag.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    let matches =
        |name: &str, filter: &String| if exact { name == filter } else { name.contains(filter.as_str()) };
    let chosen = |name: &str| {
        !ignored
            && (filters.is_empty() || filters.iter().any(|filter| matches(name, filter)))
            && !skipped.iter().any(|filter| matches(name, filter))
    };
    let mut failed = Vec::new();
    for (name, test) in tests.iter().filter(|(name, _)| chosen(name)) {
        if list {
            println!("{name}: test");
            continue;
        }
        match catch_unwind(test) {
            Ok(()) => println!("test {name} ... ok"),
            Err(_) => {
                println!("test {name} ... FAILED");
                failed.push(*name);
            }
        }
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        exit(101);
    }
}
