//! Compiles the C++ part of the interface to llama.cpp, and checks what the feature `native` promises:
//! without the compiler flag llama.cpp would silently be built for an older processor.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/ffi/memory.cpp");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if std::env::var_os("CARGO_FEATURE_NATIVE").is_some() && !flags.contains("target-cpu=native") {
        println!(
            "cargo::error=the feature `native` of exsa-backend-llamacpp needs RUSTFLAGS=\"-C target-cpu=native\": llama.cpp is \
             compiled for the processor that Rust compiles for"
        );
    }
    cc::Build::new().cpp(true).std("c++17").file("src/ffi/memory.cpp").compile("exsa_llama_memory");
}
