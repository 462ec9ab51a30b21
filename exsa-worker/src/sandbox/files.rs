//! Restriction of files by landlock.

use super::SandboxOptions;
use exsa_core::gguf::split_paths;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use std::path::Path;

/// The newest supported landlock version; older kernels enforce the rights that they know.
const VERSION: ABI = ABI::V6;
/// Files read by the standard library, allocators and backends.
const SYSTEM: [&str; 7] = [
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/dev/null",
    "/dev/urandom",
];

/// Restricts this thread, and threads that it starts, to the given files.
pub(super) fn restrict(
    options: &SandboxOptions,
    model: Option<&Path>,
    packed: Option<&Path>,
) -> Result<(), String> {
    let text = |error: landlock::RulesetError| error.to_string();
    let all = AccessFs::from_all(VERSION);
    // Execution is not allowed; the system call filter refuses it as well.
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .map_err(text)?
        .scope(Scope::from_all(VERSION))
        .map_err(text)?
        .create()
        .map_err(text)?;
    let optional = SYSTEM.iter().map(Path::new).chain(packed).map(|path| (path.to_path_buf(), true));
    let given = options.read.iter().cloned().chain(model.map(Path::to_path_buf)).map(|path| (path, false));
    // A part that is missing is an error of loading.
    let parts = model.and_then(split_paths).unwrap_or_default().into_iter().map(|path| (path, true));
    for (path, may_be_missing) in optional.chain(given).chain(parts) {
        match PathFd::new(&path) {
            Ok(file) => rules = rules.add_rule(PathBeneath::new(file, rights(&path, read))).map_err(text)?,
            Err(PathFdError::OpenCall { .. }) if may_be_missing => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    let write = all & !landlock::BitFlags::from(AccessFs::Execute);
    for path in &options.write {
        let file = PathFd::new(path).map_err(|error| format!("{}: {error}", path.display()))?;
        rules = rules.add_rule(PathBeneath::new(file, rights(path, write))).map_err(text)?;
    }
    match rules.restrict_self().map_err(text)?.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel has no landlock".into()),
        _ => Ok(()),
    }
}

/// Returns the rights that apply to the path: rights on folders do not apply to files.
fn rights(path: &Path, rights: landlock::BitFlags<AccessFs>) -> landlock::BitFlags<AccessFs> {
    if path.is_dir() { rights } else { rights & AccessFs::from_file(VERSION) }
}
