//! Restriction of system calls by seccomp.
//!
//! The filter is a deny list. Other calls, which the standard library, allocators and backends change from
//! version to version, are allowed.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Calls that are refused with any arguments.
const REFUSED: &[i64] = &[
    // Network: the connection to the host is already open.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // Programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Large and rarely needed parts of the kernel.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    // System-wide operations.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
];

/// Calls that only x86 has, with those that have separate numbers in x32 mode.
#[cfg(target_arch = "x86_64")]
const REFUSED_X86: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    X32 | 520, // execve
    X32 | 521, // ptrace
    X32 | 524, // rt_sigqueueinfo
    X32 | 528, // kexec_load
    X32 | 536, // rt_tgsigqueueinfo
    X32 | 539, // process_vm_readv
    X32 | 540, // process_vm_writev
    X32 | 545, // execveat
];

/// Marks x32 numbers, which a kernel built for them accepts from any x86-64 process.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Restricts all threads of this process.
pub(super) fn restrict() -> Result<(), String> {
    let pid = u64::from(std::process::id());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut refuse = |call: i64, conditions: Vec<SeccompRule>| {
        #[cfg(target_arch = "x86_64")]
        if call & X32 == 0 {
            rules.insert(call | X32, conditions.clone());
        }
        rules.insert(call, conditions);
    };
    for call in REFUSED {
        refuse(*call, Vec::new());
    }
    #[cfg(target_arch = "x86_64")]
    for call in REFUSED_X86 {
        refuse(*call, Vec::new());
    }
    // Refuses new processes; new threads share all with this one.
    refuse(libc::SYS_clone, vec![rule([condition(0, SeccompCmpOp::MaskedEq(THREAD), 0)?])?]);
    // Refuses signals to other processes, and changes of their limits.
    refuse(libc::SYS_kill, vec![rule([condition(0, SeccompCmpOp::Ne, pid)?])?]);
    refuse(libc::SYS_tgkill, vec![rule([condition(0, SeccompCmpOp::Ne, pid)?])?]);
    let other = [condition(0, SeccompCmpOp::Ne, pid)?, condition(0, SeccompCmpOp::Ne, 0)?];
    refuse(libc::SYS_prlimit64, vec![rule(other)?]);
    apply(rules, SeccompAction::Errno(libc::EPERM as u32))?;
    // The flags of clone3 are in memory, where the filter cannot see them: if the call fails, libraries use
    // clone.
    let mut rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(X32 | libc::SYS_clone3, Vec::new());
    apply(rules, SeccompAction::Errno(libc::ENOSYS as u32))
}

const THREAD: u64 = libc::CLONE_THREAD as u64;

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).map_err(|error| error.to_string())
}

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions.into()).map_err(|error| error.to_string())
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, refusal: SeccompAction) -> Result<(), String> {
    let target = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, target);
    let program: Result<BpfProgram, _> = filter.and_then(TryInto::try_into);
    let program = program.map_err(|error| error.to_string())?;
    apply_filter_all_threads(&program).map_err(|error| error.to_string())
}
