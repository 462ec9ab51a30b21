//! Quantizes a GGUF.
//!
//! ```text
//! cargo run --release -p exsa-quant --example quantize -- IN.gguf OUT.gguf Q4_K_M
//!     [--importance F] [--threads N] [--pure] [--allow-requantize]
//! ```

use exsa_quant::{ImportanceMatrix, Mixture, QuantizeOptions, quantize_gguf};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;

const USAGE: &str =
    "usage: quantize IN OUT MIXTURE [--importance FILE] [--threads N] [--pure] [--allow-requantize]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or(USAGE);
    let (input, output, mixture) = (next()?, next()?, next()?);
    let mixture = Mixture::from_name(&mixture).ok_or_else(|| {
        let names: Vec<_> = Mixture::all().map(Mixture::name).collect();
        format!("no mixture is named {mixture}; there are {}", names.join(", "))
    })?;
    let mut options = QuantizeOptions::new(mixture);
    while let Some(option) = arguments.next() {
        options = match option.as_str() {
            "--pure" => options.pure(true),
            "--allow-requantize" => options.allow_requantize(true),
            "--threads" => options.threads(arguments.next().ok_or(USAGE)?.parse()?),
            "--importance" => {
                let mut file = File::open(arguments.next().ok_or(USAGE)?)?;
                options.importance(ImportanceMatrix::read(&mut file)?)
            }
            _ => return Err(format!("no such option: {option}; {USAGE}").into()),
        };
    }
    let mut reader = File::open(&input)?;
    let writer = BufWriter::new(File::create_new(&output)?);
    let mut shown = usize::MAX;
    let result = quantize_gguf(&mut reader, writer, &options, |progress| {
        if progress.index != shown {
            shown = progress.index;
            let percent = 100.0 * progress.bytes_done as f64 / progress.bytes.max(1) as f64;
            print!("\r{percent:5.1} %  {:<40} {:8}", progress.tensor, progress.dtype.name());
            let _ = std::io::stdout().flush();
        }
        ControlFlow::Continue(())
    });
    println!();
    let summary = result.inspect_err(|_| {
        // An incomplete file is of no use.
        let _ = std::fs::remove_file(&output);
    })?;
    println!(
        "{} tensors quantized ({} without importance): {:.1} MiB, before {:.1} MiB",
        summary.converted,
        summary.without_importance,
        summary.bytes_after as f64 / (1 << 20) as f64,
        summary.bytes_before as f64 / (1 << 20) as f64,
    );
    Ok(())
}
