//! The worker process of programs that do not re-execute themselves.
fn main() {}
