//! Compiles the kernels for the emulator. Without a C++ compiler, or on other processors than those whose
//! stacks it can switch, the crate has no device and says why.

use std::env::var;

const KERNELS: &str = "../exsa-gpu/kernels";

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-changed={KERNELS}");
    println!("cargo:rustc-check-cfg=cfg(emulated)");
    let reason = match compile() {
        Ok(()) => {
            println!("cargo:rustc-cfg=emulated");
            String::new()
        }
        Err(reason) => reason.lines().next().unwrap_or("unknown").to_owned(),
    };
    println!("cargo:rustc-env=EXSA_EMULATED_UNAVAILABLE={reason}");
}

fn compile() -> Result<(), String> {
    let arch = var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if var("CARGO_CFG_UNIX").is_err() || !["x86_64", "aarch64"].contains(&arch.as_str()) {
        return Err("the emulator runs on Unix, on x86-64 and AArch64".to_owned());
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).flag("-fno-strict-aliasing").include(KERNELS).include("cpp");
    // A machine without a compiler builds without the emulator; a fault in the kernels is a fault of the
    // build.
    if let Err(error) = build.try_get_compiler() {
        return Err(format!("no C++ compiler: {error}"));
    }
    if !build.is_flag_supported("-std=c++17").unwrap_or(false) {
        return Err("no C++ compiler that knows C++17".to_owned());
    }
    build.file("cpp/emulated.cpp").compile("exsa_emulated");
    Ok(())
}
