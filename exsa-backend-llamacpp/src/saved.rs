//! Conversion of llama.cpp's state of one sequence for saved KV: it is stored as the state of a session with
//! a single stream, so that a session of any layout can restore it.

/// Bytes of llama.cpp's state before the number of streams.
const STREAMS_AT: usize = 8;

/// Converts the state of a sequence in stream `seq` of `streams` to that of a session with a single stream.
/// The state must be of a single attention cache and list the cells of every stream; `None` for other
/// layouts.
pub(crate) fn to_one_stream(state: &[u8], seq: usize, streams: usize) -> Option<Vec<u8>> {
    let (start, _) = streams_of(state, streams)?;
    // All sequences share the only stream.
    let seq = if streams == 1 { 0 } else { seq };
    // All streams but the sequence's own have 0 cells, a number of four bytes.
    let after = 4 * streams.checked_sub(seq + 1)?;
    let cells = state.get(start + 4 * seq..state.len().checked_sub(after)?)?;
    let empty = state[start..start + 4 * seq].iter().chain(&state[state.len() - after..]);
    if empty.copied().any(|byte| byte != 0) {
        return None;
    }
    Some([&state[..STREAMS_AT], &1u32.to_le_bytes(), cells].concat())
}

/// Converts a state from [`to_one_stream`] for a session with `streams` streams.
pub(crate) fn from_one_stream(state: &[u8], streams: usize) -> Option<Vec<u8>> {
    let (start, header) = streams_of(state, 1)?;
    let number = u32::try_from(streams).ok()?.to_le_bytes();
    Some([header, &number, &state[start..], &vec![0; 4 * streams.checked_sub(1)?]].concat())
}

/// Offset of the first stream, and the bytes before the number of streams, which has to be `streams`.
fn streams_of(state: &[u8], streams: usize) -> Option<(usize, &[u8])> {
    let start = STREAMS_AT + 4;
    let number = state.get(STREAMS_AT..start)?;
    (number == u32::try_from(streams).ok()?.to_le_bytes()).then_some((start, &state[..STREAMS_AT]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_taken_away_and_added() {
        let of = |streams: u32, before: usize, after: usize| {
            let number = streams.to_le_bytes();
            [&[9; 8][..], &number, &vec![0; 4 * before], &[5, 0, 0, 0, 7, 7], &vec![0; 4 * after]].concat()
        };
        for seq in 0..4 {
            let one = to_one_stream(&of(4, seq, 3 - seq), seq, 4).unwrap();
            assert_eq!(one, of(1, 0, 0));
            assert_eq!(from_one_stream(&one, 3).unwrap(), of(3, 0, 2));
        }
        for seq in [0, 7] {
            assert_eq!(to_one_stream(&of(1, 0, 0), seq, 1).unwrap(), of(1, 0, 0));
        }
        assert_eq!(to_one_stream(&of(4, 1, 2), 0, 4), None);
        assert_eq!(to_one_stream(&of(4, 1, 2), 1, 5), None);
        assert_eq!(to_one_stream(&of(4, 1, 2), 4, 4), None);
        assert_eq!(to_one_stream(&[1, 2], 0, 1), None);
    }
}
