//! Configuration files of any bytes: read, or refused with problems that can be printed.
#![no_main]

use exsa_server::config::{Config, Place, Problems};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    match Config::parse(&text) {
        Ok(mut config) => {
            // Validation reads the files that these name.
            (config.tls, config.engine.model, config.listen.unix) = Default::default();
            let mut problems = Problems::default();
            config.validate(&mut problems);
            let _ = (config.server_options(), config.limits.connections(), config.engine.options());
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                assert!(!problem.message.is_empty());
                if let Place::File { line, column, text, marked } = &problem.place {
                    assert!(*line >= 1 && *column >= 1 && marked.end <= text.chars().count());
                }
            }
            assert!(!error.to_string().contains('\u{1b}'), "escapes of terminals");
        }
    }
});
