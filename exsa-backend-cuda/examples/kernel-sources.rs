//! Writes the source of every module, for CUDA and for Metal, into a folder: `kernel-sources FOLDER`. For
//! checks of the kernels by compilers.

use exsa_gpu::kernel::{Language, Module};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: kernel-sources FOLDER");
        return ExitCode::FAILURE;
    };
    let written = std::fs::create_dir_all(&folder).and_then(|()| {
        for module in Module::all() {
            for (language, ending) in [(Language::Cuda, "cu"), (Language::Metal, "metal")] {
                let path = folder.join(format!("{}.{ending}", module.name()));
                std::fs::write(path, module.source(language))?;
            }
            let kernels: Vec<String> = module.kernels().into_iter().map(|kernel| kernel.name).collect();
            std::fs::write(folder.join(format!("{}.kernels", module.name())), kernels.join("\n") + "\n")?;
        }
        Ok(())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
