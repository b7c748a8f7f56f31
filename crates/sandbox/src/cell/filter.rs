//! Which system calls a cell may make: filters, compiled once by the launcher, and inherited by all that a cell starts.
//!
//! One names what may be called at all. What is not in it does not exist (`ENOSYS`), as on an older kernel, so that the C
//! library falls back: `clone3`, whose flags lie in memory that a filter cannot read, to `clone`, whose flags are an argument.
//! Another says no (`EPERM`) to what is known and refused, and to calls of the first list with the wrong arguments. Calls of
//! another architecture (32 bits) end the process, and those of x32 have numbers that are in no list.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// The filters, in the order in which they are to be applied.
pub(super) struct Filters {
    /// For cells that write to files of the host: no file is made to run with the rights of its owner or group.
    pub(super) no_set_id: BpfProgram,
    /// What may be called at all.
    pub(super) exists: BpfProgram,
    /// What may be called, and how.
    pub(super) may: BpfProgram,
}

/// Compiles the filters.
pub(super) fn filters() -> Result<Filters, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let allowed = calls(ALLOWED).chain(calls(ALLOWED_HERE)).map(|call| (call, Vec::new())).collect();
    let refused = calls(REFUSED).map(|call| (call, Vec::new()));
    let refused: BTreeMap<i64, Vec<SeccompRule>> = refused.chain(by_argument()?).collect();
    let errno = |errno: i32| SeccompAction::Errno(errno.cast_unsigned());
    let exists = SeccompFilter::new(allowed, errno(libc::ENOSYS), SeccompAction::Allow, arch)?;
    let may = SeccompFilter::new(refused, SeccompAction::Allow, errno(libc::EPERM), arch)?;
    let no_set_id = SeccompFilter::new(set_id()?, SeccompAction::Allow, errno(libc::EPERM), arch)?;
    Ok(Filters { no_set_id: no_set_id.try_into()?, exists: exists.try_into()?, may: may.try_into()? })
}

/// All ways to give a file the bits by which it runs as its owner or group, whoever starts it. Where a gate is root, the owner of
/// what a cell writes may be root.
fn set_id() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::Error> {
    let has = |argument: u8, bit: u32| {
        let bit = u64::from(bit);
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit), bit)
    };
    let bits = [libc::S_ISUID, libc::S_ISGID];
    let mode = |argument: u8| -> Result<Vec<SeccompRule>, seccompiler::Error> {
        bits.into_iter().map(|bit| Ok(SeccompRule::new(vec![has(argument, bit)?])?)).collect()
    };
    // The mode is one only where a file may be made.
    let open = |flags: u8| -> Result<Vec<SeccompRule>, seccompiler::Error> {
        let makes = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY].map(i32::cast_unsigned);
        let pairs = makes.into_iter().flat_map(|make| bits.map(|bit| (make, bit)));
        pairs
            .map(|(make, bit)| Ok(SeccompRule::new(vec![has(flags, make)?, has(flags + 1, bit)?])?))
            .collect()
    };
    let mut calls = BTreeMap::from([
        (libc::SYS_fchmod, mode(1)?),
        (libc::SYS_fchmodat, mode(2)?),
        (libc::SYS_fchmodat2, mode(2)?),
        (libc::SYS_mknodat, mode(2)?),
        (libc::SYS_openat, open(2)?),
        // Its mode lies in memory. Programs fall back to `openat`.
        (libc::SYS_openat2, Vec::new()),
    ]);
    #[cfg(target_arch = "x86_64")]
    calls.extend([
        (libc::SYS_chmod, mode(1)?),
        (libc::SYS_creat, mode(1)?),
        (libc::SYS_mknod, mode(1)?),
        (libc::SYS_open, open(1)?),
    ]);
    Ok(calls)
}

fn calls(groups: &'static [&'static [i64]]) -> impl Iterator<Item = i64> {
    groups.iter().copied().flatten().copied()
}

/// Calls that are refused if an argument is not as it has to be.
fn by_argument() -> Result<Vec<(i64, Vec<SeccompRule>)>, seccompiler::Error> {
    let is_not = |argument: u8, allowed: &[u64]| -> Result<SeccompRule, seccompiler::Error> {
        let not =
            |value: &u64| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *value);
        Ok(SeccompRule::new(allowed.iter().map(not).collect::<Result<_, _>>()?)?)
    };
    let is = |argument: u8, value: u64| -> Result<SeccompRule, seccompiler::Error> {
        let is = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        Ok(SeccompRule::new(vec![is])?)
    };
    let has = |argument: u8, bits: u64| -> Result<SeccompRule, seccompiler::Error> {
        let has =
            SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bits), bits)?;
        Ok(SeccompRule::new(vec![has])?)
    };
    let number = |value: i32| u64::from(value.cast_unsigned());
    // Netlink is for asking about interfaces and addresses (`getifaddrs`), which is its protocol 0 and no other.
    let netlink = SeccompRule::new(vec![
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number(libc::AF_NETLINK))?,
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, number(libc::NETLINK_ROUTE))?,
    ])?;
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(number);
    // SOCK_RAW, SOCK_RDM and SOCK_DCCP; the flags beside the type are left out of the comparison. On netlink, raw is
    // how one asks.
    let kind = |kind: i32| -> Result<SeccompRule, seccompiler::Error> {
        Ok(SeccompRule::new(vec![
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, number(libc::AF_NETLINK))?,
            SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(0xf), number(kind))?,
        ])?)
    };
    let kinds = [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_DCCP];
    let mut socket = vec![is_not(0, &families)?, netlink];
    for raw in kinds {
        socket.push(kind(raw)?);
    }
    let namespaces = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let clone = namespaces.iter().map(|flag| has(0, number(*flag))).collect::<Result<_, _>>()?;
    // Typing into a terminal on behalf of whoever sits there, and its older cousin.
    let ioctl = vec![is(1, libc::TIOCSTI)?, is(1, TIOCLINUX)?, is(1, libc::TIOCSETD)?];
    Ok(vec![
        (libc::SYS_clone, clone),
        (libc::SYS_ioctl, ioctl),
        // Linux as it is (0), and the question which it is.
        (libc::SYS_personality, vec![is_not(0, &[0, 0xffff_ffff])?]),
        // What names or changes its own process, not what traces, seizes or keeps another one alive.
        (
            libc::SYS_prctl,
            REFUSED_PRCTL.iter().map(|option| is(0, number(*option))).collect::<Result<_, _>>()?,
        ),
        (libc::SYS_socket, socket.clone()),
        (libc::SYS_socketpair, vec![is_not(0, &[number(libc::AF_UNIX)])?]),
    ])
}

const TIOCLINUX: u64 = 0x541c;

/// Options of `prctl` that are refused.
const REFUSED_PRCTL: &[i32] = &[
    // It lets another process trace this one.
    libc::PR_SET_PTRACER,
    // A second program for the kernel to run as this one.
    libc::PR_SET_MM,
    // Filters are in force; more of them are of no use to the program and let it fake what calls answer.
    libc::PR_SET_SECCOMP,
    libc::PR_SET_SECUREBITS,
];

/// What may be called, and who needs it.
const ALLOWED: &[&[i64]] = &[
    // Everything: memory.
    &[
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_msync,
        libc::SYS_mincore,
        libc::SYS_mlock,
        libc::SYS_mlock2,
        libc::SYS_munlock,
        libc::SYS_mlockall,
        libc::SYS_munlockall,
        // JIT compilers (node, the JVM) keep two views of one memory, and glibc's `shm_open` users.
        libc::SYS_memfd_create,
        libc::SYS_membarrier,
        // V8 protects its code pages by keys.
        libc::SYS_pkey_alloc,
        libc::SYS_pkey_free,
        libc::SYS_pkey_mprotect,
    ],
    // Everything: files that are open.
    &[
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_preadv,
        libc::SYS_pwritev,
        libc::SYS_preadv2,
        libc::SYS_pwritev2,
        libc::SYS_close,
        libc::SYS_close_range,
        libc::SYS_lseek,
        libc::SYS_fcntl,
        libc::SYS_ioctl,
        libc::SYS_dup,
        libc::SYS_dup3,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_sync_file_range,
        libc::SYS_syncfs,
        libc::SYS_ftruncate,
        libc::SYS_truncate,
        libc::SYS_fallocate,
        libc::SYS_fadvise64,
        libc::SYS_readahead,
        libc::SYS_flock,
        libc::SYS_fstat,
        libc::SYS_fstatfs,
        libc::SYS_statfs,
        libc::SYS_sendfile,
        libc::SYS_copy_file_range,
        // `cat`, `tee` and node's streams; into the allowed families of sockets only.
        libc::SYS_splice,
        libc::SYS_tee,
        libc::SYS_pipe2,
    ],
    // Everything: names of files.
    &[
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_readlinkat,
        libc::SYS_getdents64,
        libc::SYS_getcwd,
        libc::SYS_chdir,
        libc::SYS_fchdir,
        libc::SYS_mkdirat,
        libc::SYS_unlinkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_linkat,
        libc::SYS_symlinkat,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchmodat2,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_utimensat,
        libc::SYS_umask,
        // Pipes with a name: build systems (`make` hands its job slots on by one). Devices are refused by the kernel.
        libc::SYS_mknodat,
        // cp, tar and git ask for extended attributes.
        libc::SYS_getxattr,
        libc::SYS_lgetxattr,
        libc::SYS_fgetxattr,
        libc::SYS_listxattr,
        libc::SYS_llistxattr,
        libc::SYS_flistxattr,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
        libc::SYS_fremovexattr,
        // Watchers of files: node, cargo, test runners.
        libc::SYS_inotify_init1,
        libc::SYS_inotify_add_watch,
        libc::SYS_inotify_rm_watch,
    ],
    // Everything: processes and threads.
    &[
        libc::SYS_clone,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_wait4,
        libc::SYS_waitid,
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_tgkill,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_set_tid_address,
        libc::SYS_set_robust_list,
        libc::SYS_get_robust_list,
        libc::SYS_rseq,
        libc::SYS_futex,
        libc::SYS_restart_syscall,
        libc::SYS_prctl,
        libc::SYS_personality,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_getparam,
        libc::SYS_sched_getscheduler,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_get_priority_max,
        libc::SYS_sched_get_priority_min,
        libc::SYS_sched_getattr,
        libc::SYS_getpriority,
        libc::SYS_setpriority,
        libc::SYS_getcpu,
        libc::SYS_getrlimit,
        libc::SYS_prlimit64,
        libc::SYS_getrusage,
        libc::SYS_times,
        libc::SYS_sysinfo,
        libc::SYS_uname,
        libc::SYS_getrandom,
    ],
    // Shells and servers: who one is, sessions and groups of processes.
    &[
        libc::SYS_getpid,
        libc::SYS_getppid,
        libc::SYS_gettid,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_getresuid,
        libc::SYS_getresgid,
        libc::SYS_getgroups,
        libc::SYS_setpgid,
        libc::SYS_getpgid,
        libc::SYS_getsid,
        libc::SYS_setsid,
        // To the one user there is; tar and git try.
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_capget,
    ],
    // Everything: signals, time and timers.
    &[
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigpending,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_rt_sigsuspend,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_sigaltstack,
        libc::SYS_signalfd4,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_gettimeofday,
        libc::SYS_getitimer,
        libc::SYS_setitimer,
        libc::SYS_timer_create,
        libc::SYS_timer_settime,
        libc::SYS_timer_gettime,
        libc::SYS_timer_getoverrun,
        libc::SYS_timer_delete,
        libc::SYS_timerfd_create,
        libc::SYS_timerfd_settime,
        libc::SYS_timerfd_gettime,
    ],
    // Event loops: node, Python's asyncio, tokio, the JVM.
    &[
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_epoll_create1,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_eventfd2,
    ],
    // Sockets, of the families below.
    &[
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_connect,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_setsockopt,
        libc::SYS_getsockopt,
        libc::SYS_shutdown,
        libc::SYS_sendto,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_sendmmsg,
        libc::SYS_recvmmsg,
    ],
    // Memory and messages between the processes of one cell, which has a namespace for them: databases and numpy.
    &[
        libc::SYS_shmget,
        libc::SYS_shmat,
        libc::SYS_shmdt,
        libc::SYS_shmctl,
        libc::SYS_semget,
        libc::SYS_semop,
        libc::SYS_semtimedop,
        libc::SYS_semctl,
        libc::SYS_mq_open,
        libc::SYS_mq_unlink,
        libc::SYS_mq_timedsend,
        libc::SYS_mq_timedreceive,
        libc::SYS_mq_notify,
        libc::SYS_mq_getsetattr,
    ],
    // Programs may shut themselves in further.
    &[libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self],
    // The second filter is put in force under the first one, and then refuses it.
    &[libc::SYS_seccomp],
];

/// What only this architecture has: older spellings of the above, which its C library still uses.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[&[i64]] = &[
    &[
        libc::SYS_open,
        libc::SYS_creat,
        libc::SYS_stat,
        libc::SYS_lstat,
        libc::SYS_access,
        libc::SYS_readlink,
        libc::SYS_getdents,
        libc::SYS_mkdir,
        libc::SYS_rmdir,
        libc::SYS_unlink,
        libc::SYS_rename,
        libc::SYS_link,
        libc::SYS_symlink,
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_lchown,
        libc::SYS_mknod,
        libc::SYS_utime,
        libc::SYS_utimes,
        libc::SYS_futimesat,
        libc::SYS_dup2,
        libc::SYS_pipe,
        libc::SYS_inotify_init,
    ],
    &[
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_arch_prctl,
        libc::SYS_getpgrp,
        libc::SYS_alarm,
        libc::SYS_pause,
        libc::SYS_time,
        libc::SYS_signalfd,
    ],
    &[libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_eventfd],
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[&[i64]] = &[];

/// What is known and refused; a program that tries it is told so, rather than that there is no such thing.
const REFUSED: &[&[i64]] = &[
    // Namespaces, mounts and roots of one's own: the way to capabilities over rarely tried parts of the kernel.
    &[
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
    ],
    // Other processes' memory and descriptors.
    &[
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_pidfd_getfd,
        libc::SYS_kcmp,
    ],
    // Files by number instead of by name: past every mount.
    &[libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at],
    // Large parts of the kernel behind one call.
    &[
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_seccomp,
        libc::SYS_fanotify_init,
        libc::SYS_vmsplice,
        libc::SYS_memfd_secret,
    ],
    // The machine itself.
    &[
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
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_adjtimex,
        libc::SYS_setgroups,
        libc::SYS_capset,
    ],
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_is_both_allowed_and_refused() {
        let allowed: BTreeSet<i64> = calls(ALLOWED).chain(calls(ALLOWED_HERE)).collect();
        let both: Vec<i64> = calls(REFUSED).filter(|call| allowed.contains(call)).collect();
        assert_eq!(both, [libc::SYS_seccomp]);
        assert!(!allowed.contains(&libc::SYS_clone3));
    }

    #[test]
    fn the_filters_compile_and_are_small_enough_for_the_kernel() {
        let Filters { no_set_id, exists, may } = filters().unwrap();
        for filter in [no_set_id, exists, may] {
            assert!(filter.len() < 4096, "{} instructions", filter.len());
        }
    }
}
