//! The feature `native` is a promise that only a compiler flag can keep: without it llama.cpp would be built for an older
//! processor, and nobody would notice but by the clock.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if std::env::var_os("CARGO_FEATURE_NATIVE").is_some() && !flags.contains("target-cpu=native") {
        println!(
            "cargo::error=the feature `native` of exsa-backend-llamacpp needs RUSTFLAGS=\"-C target-cpu=native\": llama.cpp is \
             compiled for the processor that Rust compiles for"
        );
    }
}
