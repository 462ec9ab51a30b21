//! Streams of remote engines: any bytes are read without a panic by every dialect, within the limit of an
//! event, and the events do not depend on how the bytes are cut.
#![no_main]

use exsa_backend_remote::sse::{SseEvent, SseParser};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fn events<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<SseEvent>> {
    let mut parser = SseParser::new(LIMIT);
    let mut events = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut events).ok()?;
    }
    parser.finish(&mut events).ok()?;
    assert!(events.iter().all(|event| event.data.len() <= 3 * LIMIT), "a byte becomes one character of 3 bytes at most");
    Some(events)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let whole = events(std::iter::once(bytes));
    assert_eq!(events(bytes.chunks(usize::from(*step).max(1))), whole);
    for event in whole.into_iter().flatten() {
        exsa_backend_remote::read_event(&event.data);
    }
});
