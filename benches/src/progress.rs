//! Words for people, on stderr: stdout is for results alone.

use std::fmt::Display;
use std::io::Write;

/// Says one line.
pub fn say(line: impl Display) {
    // Nobody listening is no reason to stop measuring.
    let _ = writeln!(std::io::stderr(), "{line}");
}
