//! The system calls that serving needs. All others fail with `EPERM`.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("it cannot be compiled")]
    Compile(#[from] BackendError),
    #[error("it cannot be installed")]
    Install(#[from] seccompiler::Error),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filter in the calling thread, for it and those that it starts.
pub(crate) fn install() -> Result<(), FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    // clone3's flags lie in memory, out of a filter's sight. Where it does not exist the C
    // library starts threads with clone, whose flags can be checked.
    let no_clone3 = compile(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        arch,
    )?;
    let allowed = compile(
        allowed()?,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
        arch,
    )?;
    apply_filter(&no_clone3)?;
    apply_filter(&allowed)?;
    Ok(())
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()
}

fn allowed() -> Result<Rules, BackendError> {
    let unconditional = MEMORY
        .iter()
        .chain(THREADS)
        .chain(TIME)
        .chain(EVENTS)
        .chain(FILES)
        .chain(SOCKETS)
        .chain(ARCH);
    let mut rules: Rules = unconditional.map(|number| (*number, Vec::new())).collect();
    rules.extend(conditional()?);
    // The other filter decides.
    rules.insert(libc::SYS_clone3, Vec::new());
    Ok(rules)
}

const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
];

const THREADS: &[c_long] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
];

const TIME: &[c_long] = &[
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
];

const EVENTS: &[c_long] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
];

/// For name resolution, mostly. What may be opened is a matter of the user's rights.
const FILES: &[c_long] = &[
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getuid,
    libc::SYS_capget,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

const SOCKETS: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// Older forms, which the C library uses where they exist.
#[cfg(target_arch = "x86_64")]
const ARCH: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ARCH: &[c_long] = &[];

/// Names of mappings, which allocators set.
const PR_SET_VMA: u64 = 0x5356_4d41;
/// For statuses of seals.
const PR_CAPBSET_READ: u64 = 23;

fn conditional() -> Result<Rules, BackendError> {
    let own_pid = u64::from(std::process::id());
    let prctl = [
        libc::PR_SET_NAME.unsigned_abs().into(),
        libc::PR_GET_NAME.unsigned_abs().into(),
        libc::PR_GET_NO_NEW_PRIVS.unsigned_abs().into(),
        libc::PR_GET_SECCOMP.unsigned_abs().into(),
        PR_CAPBSET_READ,
        PR_SET_VMA,
    ];
    let ioctl = [libc::FIONBIO, libc::FIONREAD, libc::TCGETS, libc::FIOCLEX];
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    let mut sockets = one_of(0, families.map(|family| family.unsigned_abs().into()))?;
    // The C library asks for the machine's addresses to sort those of a name.
    sockets.push(SeccompRule::new(vec![
        equals(0, libc::AF_NETLINK.unsigned_abs().into())?,
        equals(2, libc::NETLINK_ROUTE.unsigned_abs().into())?,
    ])?);
    // New threads, and nothing else: no processes, no namespaces.
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let namespaces = [
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ]
    .iter()
    .fold(0, |all, flag| all | u64::from(flag.unsigned_abs()));
    let clone = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(thread | namespaces),
        thread,
    )?;
    Ok(BTreeMap::from([
        (libc::SYS_prctl, one_of(0, prctl)?),
        (libc::SYS_ioctl, one_of(1, ioctl)?),
        (libc::SYS_socket, sockets),
        (
            libc::SYS_socketpair,
            one_of(0, [libc::AF_UNIX.unsigned_abs().into()])?,
        ),
        (libc::SYS_clone, vec![SeccompRule::new(vec![clone])?]),
        // Its own limits, and signals to itself (abort).
        (libc::SYS_prlimit64, one_of(0, [0])?),
        (libc::SYS_tgkill, one_of(0, [own_pid])?),
    ]))
}

fn one_of<const N: usize>(
    argument: u8,
    values: [u64; N],
) -> Result<Vec<SeccompRule>, BackendError> {
    values
        .into_iter()
        .map(|value| SeccompRule::new(vec![equals(argument, value)?]))
        .collect()
}

fn equals(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_lists_nothing_dangerous() {
        let allowed = allowed().unwrap();
        for number in [
            libc::SYS_add_key,
            libc::SYS_bpf,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_finit_module,
            libc::SYS_init_module,
            libc::SYS_io_uring_setup,
            libc::SYS_kexec_load,
            libc::SYS_keyctl,
            libc::SYS_kill,
            libc::SYS_listen,
            libc::SYS_memfd_create,
            libc::SYS_mount,
            libc::SYS_move_mount,
            libc::SYS_open_by_handle_at,
            libc::SYS_open_tree,
            libc::SYS_perf_event_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_pivot_root,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_ptrace,
            libc::SYS_setns,
            libc::SYS_setuid,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_userfaultfd,
        ] {
            assert!(!allowed.contains_key(&number), "{number}");
        }
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        compile(allowed, SeccompAction::Errno(1), SeccompAction::Allow, arch).unwrap();
    }
}
