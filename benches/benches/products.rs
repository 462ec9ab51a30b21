//! Products of quantized and of float matrices, beside what the machine can do at most in the same run.
//!
//! `cargo bench -p exsa-benches --bench products -- [types=Q4_K,F16] [shapes=8192x2048] [rows=1,16,512]
//! [threads=2] [ms=60] [best=1] [isa=avx-vnni]`
//!
//! One line per case: rows, time (median, rows quantized already), billions of operations a second and their
//! share of the peak of vectors (dot products of int8, multiply-adds of f32 for F32, F16 and BF16), bytes of
//! weights a second and their share of a plain read of the same bytes by the same threads, time to quantize
//! the rows (for floats: to reorder them) beside that of the product. With `best=1` the best time instead of
//! the median: for a machine that others use too.
#![allow(missing_docs, clippy::unwrap_used)]

use exsa_backend_candle::bench_hooks::{Machine, Products};
use exsa_core::gguf::GgmlType;
use std::time::{Duration, Instant};

/// Bytes of matrices that are multiplied in turn.
const WORKING_SET: usize = 1 << 30;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let list = |key: &str, default: &str| -> Vec<String> {
        let given = args.iter().find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='));
        given.unwrap_or(default).split(',').map(str::to_owned).collect()
    };
    let number = |key: &str, default: &str| list(key, default)[0].parse::<usize>().unwrap();
    let limit = Duration::from_millis(number("ms", "60") as u64);
    let best = number("best", "0") == 1;
    let time = |limit: Duration, work: &mut dyn FnMut(usize)| time(limit, best, work);
    let isa = args.iter().find_map(|arg| arg.strip_prefix("isa="));
    let Some(mut machine) = Machine::new(number("threads", "2"), isa).unwrap() else {
        return eprintln!("this processor has no {}", isa.unwrap_or_default());
    };
    let (vector, tile) = machine.peaks();
    let fma = machine.fma_peak();
    println!("# peak from registers, GOP/s: vectors {vector:.0?}, tiles {tile:.0?}, f32 {fma:.0}");
    println!("type shape rows µs GOP/s %peak GB/s %read quantize%");
    for name in list("types", "Q8_0,Q4_0,Q4_K,Q6_K") {
        let dtype = dtype(&name);
        let float = matches!(dtype, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16);
        let peak = if float { Some(fma) } else { vector };
        for shape in list("shapes", "8192x2048,2048x8192") {
            let (n, k) = shape.split_once('x').unwrap();
            let (n, k): (usize, usize) = (n.parse().unwrap(), k.parse().unwrap());
            if k % dtype.block_len() as usize != 0 {
                continue;
            }
            let one = n * k / dtype.block_len() as usize * dtype.block_bytes() as usize;
            let copies = (WORKING_SET / one).clamp(1, 512);
            let Some(mut products) = Products::new(dtype, n, k, copies, &mut machine).unwrap() else {
                continue;
            };
            for rows in list("rows", "1,2,4,8,16,32,64,128,512") {
                let rows: usize = rows.parse().unwrap();
                products.rows(rows);
                let read = time(limit / 4, &mut |i| products.read(i, &mut machine));
                let quantize = time(limit / 8, &mut |_| products.quantize(&mut machine));
                let time = time(limit, &mut |i| products.multiply(i, &mut machine));
                let rate = 2.0 * (rows * n * k) as f64 / time * 1e-9;
                let share = peak.map_or(0.0, |peak| rate / peak * 100.0);
                println!(
                    "{name} {shape} {rows} {:.1} {rate:.0} {share:.0} {:.1} {:.0} {:.1}",
                    time * 1e6,
                    products.bytes() as f64 / time * 1e-9,
                    read / time * 100.0,
                    quantize / time * 100.0,
                );
            }
        }
    }
}

fn dtype(name: &str) -> GgmlType {
    (0..64).filter_map(GgmlType::from_id).find(|dtype| dtype.to_string() == name).unwrap()
}

/// Seconds: the median, or the `best`.
fn time(limit: Duration, best: bool, work: &mut dyn FnMut(usize)) -> f64 {
    work(0);
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || start.elapsed() < limit {
        let start = Instant::now();
        work(times.len() + 1);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[if best { 0 } else { times.len() / 2 }]
}
