//! First pass over a row: the best logit of each chunk.
//!
//! Later passes read only relevant chunks. A row of 128,000 logits
//! has 2,000 chunks; the `k` best tokens lie in at most `k` of them.

/// Logits per chunk. Small enough that searching a chunk is cheap,
/// large enough that the table of chunks is a small part of the row.
pub(super) const CHUNK: usize = 64;

/// Fills `bests` with the largest logit of each [`CHUNK`]
/// of `row`. Fails with the index of the first NaN, if any.
pub(super) fn scan(row: &[f32], bests: &mut Vec<f32>) -> Result<(), usize> {
    let (chunks, rest) = row.as_chunks::<CHUNK>();
    let mut nan = [0; LANES];
    bests.clear();
    bests.resize(chunks.len(), f32::NEG_INFINITY);
    // Four places at once: the processor fetches each ahead, and a row of a large vocabulary comes from
    // memory.
    let part = chunks.len() / 4;
    let [a, b, c, d] = std::array::from_fn(|stream| &chunks[stream * part..][..part]);
    let (best_a, others) = bests.split_at_mut(part);
    let (best_b, others) = others.split_at_mut(part);
    let (best_c, others) = others.split_at_mut(part);
    let (best_d, others) = others.split_at_mut(part);
    for i in 0..part {
        best_a[i] = best_and_nan(&a[i], &mut nan);
        best_b[i] = best_and_nan(&b[i], &mut nan);
        best_c[i] = best_and_nan(&c[i], &mut nan);
        best_d[i] = best_and_nan(&d[i], &mut nan);
    }
    for (best, chunk) in others.iter_mut().zip(&chunks[4 * part..]) {
        *best = best_and_nan(chunk, &mut nan);
    }
    if !rest.is_empty() {
        // Padded to a whole chunk: a length known only at run time would prevent vectorization.
        let mut last = [f32::NEG_INFINITY; CHUNK];
        last[..rest.len()].copy_from_slice(rest);
        bests.push(best_and_nan(&last, &mut nan));
    }
    let nan = nan.iter().any(|&lane| lane != 0);
    match row.iter().position(|x| nan && x.is_nan()) {
        Some(index) => Err(index),
        None => Ok(()),
    }
}

/// The largest value of `values`, which have no NaN.
#[inline]
pub(super) fn chunk_best(values: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let (parts, rest) = values.as_chunks::<LANES>();
    for part in parts {
        for i in 0..LANES {
            best[i] = if part[i] > best[i] { part[i] } else { best[i] };
        }
    }
    rest.iter().fold(largest(best), |best, &x| if x > best { x } else { best })
}

/// Independent lanes, so that the compiler can keep them in vector registers.
pub(super) const LANES: usize = 16;

/// The largest value of `chunk`. Sets the bits of a lane of `nan` if a value is NaN.
#[inline(always)]
fn best_and_nan(chunk: &[f32; CHUNK], nan: &mut [u32; LANES]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    for part in chunk.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            best[i] = if part[i] > best[i] { part[i] } else { best[i] };
            // Sets all bits of the lane, as vector comparisons do.
            nan[i] |= 0_u32.wrapping_sub(u32::from(part[i].is_nan()));
        }
    }
    largest(best)
}

/// The largest lane.
#[inline(always)]
pub(super) fn largest(mut lanes: [f32; LANES]) -> f32 {
    // By halves: a chain of 16 comparisons would take longer than the passes over the chunk.
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = if lanes[i + half] > lanes[i] { lanes[i + half] } else { lanes[i] };
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scan_finds_the_best_of_each_chunk() {
        let row: Vec<f32> = (0..CHUNK * 2 + 3).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut bests = vec![9.0; 7];
        assert_eq!(scan(&row, &mut bests), Ok(()));
        let want: Vec<f32> =
            row.chunks(CHUNK).map(|c| c.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
        assert_eq!(bests, want);
    }

    #[test]
    fn scan_names_the_first_nan() {
        for len in [1, 15, 16, 17, 63, 64, 65, 200] {
            for at in 0..len {
                let mut row = vec![f32::NEG_INFINITY; len];
                row[at] = f32::NAN;
                row[len - 1] = -f32::NAN;
                assert_eq!(scan(&row, &mut Vec::new()), Err(at));
            }
        }
    }
}
