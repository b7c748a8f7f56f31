//! Which system calls a cell may make: a filter, compiled once by the launcher, and inherited by all that a cell starts.
//!
//! What it does not name does not exist (`ENOSYS`), as on an older kernel, so that the C library falls back: `clone3`, whose flags
//! lie in memory that a filter cannot read, to `clone`, whose flags are an argument. It says no (`EPERM`) to what is known and
//! refused, and to calls that are allowed with other arguments. Calls of another architecture (32 bits) end the process, and those of
//! x32 have numbers that are in no list.
//!
//! It is a search tree over the numbers of the calls: the kernel walks through a filter for every call there is when it is put in
//! force, which with a list takes longer than all else that a cell gives up.

use std::collections::BTreeMap;
use std::os::raw::c_ushort;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter,
};
use rustix::io::Errno;

use super::launcher::last_error;

/// The filters: a cell has one of them.
pub(super) struct Filters {
    /// What may be called, and how.
    pub(super) usual: Filter,
    /// For cells that write to files of the host: neither is a file made to run with the rights of its owner or group.
    pub(super) no_set_id: Filter,
    /// For cells without namespaces: nor is anything reached of the host that no path leads to.
    pub(super) alone: Filter,
    /// The same, where the cell's user owns files of the host: nor is what is known of them changed.
    pub(super) alone_as_owner: Filter,
    /// For a kernel in user space, which has filters of its own for what runs on it: all that it needs to put itself apart.
    pub(super) kernel: Filter,
}

/// Compiles the filters.
pub(super) fn filters() -> Result<Filters, TooLong> {
    let as_owner = calls(CHANGES_OF_WHAT_IS_OWNED).map(|call| (call, Some(always())));
    let of_a_kernel = calls(OF_A_KERNEL).map(|call| (call, None));
    Ok(Filters {
        usual: Filter::of(&usual())?,
        no_set_id: Filter::of(&no_set_id())?,
        alone: Filter::of(&alone())?,
        alone_as_owner: Filter::of(&alone().into_iter().chain(as_owner).collect())?,
        kernel: Filter::of(&no_set_id().into_iter().chain(of_a_kernel).collect())?,
    })
}

/// What becomes of a call: `None` if it is allowed whatever its arguments are.
type Calls = BTreeMap<i64, Option<Refusal>>;

/// When a call is refused: if one of these holds.
type Refusal = Vec<Holds>;

/// All of these are true of the arguments of a call.
type Holds = Vec<(u8, Is)>;

/// Something that is true of the lower half of an argument. What these calls read is no longer than that.
#[derive(Debug, Clone, Copy)]
enum Is {
    /// It has one of these bits.
    Any(u32),
    /// It is this, in these bits.
    Equal(u32, u32),
    /// It is something else.
    Not(u32),
}

fn usual() -> Calls {
    let allowed = calls(ALLOWED).chain(calls(ALLOWED_HERE)).map(|call| (call, None));
    let refused = calls(REFUSED).map(|call| (call, Some(always())));
    let by_argument = by_argument().into_iter().map(|(call, refusal)| (call, Some(refusal)));
    allowed.chain(refused).chain(by_argument).collect()
}

/// It is refused whatever its arguments are.
fn always() -> Refusal {
    vec![Vec::new()]
}

fn no_set_id() -> Calls {
    let mut calls = usual();
    calls.extend(set_id().into_iter().map(|(call, refusal)| (call, Some(refusal))));
    calls
}

/// All ways to give a file the bits by which it runs as its owner or group, whoever starts it. Where a gate is root, the owner of
/// what a cell writes may be root.
fn set_id() -> Vec<(i64, Refusal)> {
    let bits = libc::S_ISUID | libc::S_ISGID;
    let mode = |argument: u8| vec![vec![(argument, Is::Any(bits))]];
    // The mode is one only where a file may be made.
    let makes = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)).cast_unsigned();
    let open = |flags: u8| vec![vec![(flags, Is::Any(makes)), (flags + 1, Is::Any(bits))]];
    let mut calls = vec![
        (libc::SYS_fchmod, mode(1)),
        (libc::SYS_fchmodat, mode(2)),
        (libc::SYS_fchmodat2, mode(2)),
        (libc::SYS_mknodat, mode(2)),
        (libc::SYS_openat, open(2)),
        // Its mode lies in memory. Programs fall back to `openat`.
        (libc::SYS_openat2, always()),
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([
        (libc::SYS_chmod, mode(1)),
        (libc::SYS_creat, mode(1)),
        (libc::SYS_mknod, mode(1)),
        (libc::SYS_open, open(1)),
    ]);
    calls
}

/// What namespaces would keep apart: sockets, which could be connected to the host's; memory and messages by name; settings of other
/// processes of the same user; and what is told of files that cannot be opened.
fn alone() -> Calls {
    let mut all = no_set_id();
    let mut refuse = |call: i64, more: Refusal| {
        all.entry(call).or_default().get_or_insert_default().extend(more);
    };
    let not_itself = |argument: u8| vec![vec![(argument, Is::Not(0))]];
    let kind = |kind: i32| vec![(1, Is::Equal(0xf, kind.cast_unsigned()))];
    // Pairs are for the processes of the cell. Those without a connection could be connected to others.
    refuse(libc::SYS_socketpair, vec![kind(libc::SOCK_DGRAM), kind(libc::SOCK_RAW)]);
    refuse(libc::SYS_prlimit64, not_itself(0));
    refuse(libc::SYS_sched_setaffinity, not_itself(0));
    refuse(libc::SYS_sched_setscheduler, not_itself(0));
    refuse(libc::SYS_setpriority, not_itself(1));
    // It would hide a process from the one that ends all.
    let hides = libc::PR_SET_DUMPABLE.cast_unsigned();
    refuse(libc::SYS_prctl, vec![vec![(0, Is::Equal(u32::MAX, hides))]]);
    all.extend(calls(OF_THE_WHOLE_HOST).map(|call| (call, Some(always()))));
    all
}

/// Calls that reach what everybody on a host shares, unless there are namespaces.
const OF_THE_WHOLE_HOST: &[&[i64]] = &[&[
    libc::SYS_socket,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_inotify_add_watch,
]];

/// Calls that gVisor makes and no other program of a cell may.
const OF_A_KERNEL: &[&[i64]] = &[&[
    // Namespaces for itself and its server of files, each with a root that has nothing else.
    libc::SYS_chroot,
    libc::SYS_clone,
    libc::SYS_mount,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // What it gives up then, and the filters that it brings.
    libc::SYS_capset,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    // The processes in which programs run, whose calls it answers.
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
]];

/// Calls that change what is known of a file and not what is in it. Landlock does not look at them.
const CHANGES_OF_WHAT_IS_OWNED: &[&[i64]] = &[
    &[
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchmodat2,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_utimensat,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
        libc::SYS_fremovexattr,
    ],
    #[cfg(target_arch = "x86_64")]
    &[
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_lchown,
        libc::SYS_utime,
        libc::SYS_utimes,
        libc::SYS_futimesat,
    ],
];

fn calls(groups: &'static [&'static [i64]]) -> impl Iterator<Item = i64> {
    groups.iter().copied().flatten().copied()
}

/// Calls that are refused if an argument is not as it has to be.
fn by_argument() -> Vec<(i64, Refusal)> {
    const ALL: u32 = u32::MAX;
    let number = i32::cast_unsigned;
    let none_of = |argument: u8, values: &[u32]| -> Holds {
        values.iter().map(|value| (argument, Is::Not(*value))).collect()
    };
    let one_of = |argument: u8, values: &[u32]| -> Refusal {
        values.iter().map(|value| vec![(argument, Is::Equal(ALL, *value))]).collect()
    };
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(number);
    let netlink = number(libc::AF_NETLINK);
    let mut socket = vec![
        none_of(0, &families),
        // Netlink is for asking about interfaces and addresses (`getifaddrs`), which is its protocol 0 and no other.
        vec![(0, Is::Equal(ALL, netlink)), (2, Is::Not(number(libc::NETLINK_ROUTE)))],
    ];
    // The flags beside the type are left out of the comparison. On netlink, raw is how one asks.
    for kind in [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_DCCP] {
        socket.push(vec![(0, Is::Not(netlink)), (1, Is::Equal(0xf, number(kind)))]);
    }
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    vec![
        (libc::SYS_clone, vec![vec![(0, Is::Any(number(namespaces)))]]),
        // Typing into a terminal on behalf of whoever sits there, and its older cousin.
        (libc::SYS_ioctl, one_of(1, &[TIOCSTI, TIOCLINUX, TIOCSETD])),
        // Linux as it is (0), and the question which it is.
        (libc::SYS_personality, vec![none_of(0, &[0, ALL])]),
        // What names or changes its own process, not what traces, seizes or keeps another one alive.
        (libc::SYS_prctl, one_of(0, &REFUSED_PRCTL.map(number))),
        (libc::SYS_socket, socket),
        (libc::SYS_socketpair, vec![none_of(0, &[number(libc::AF_UNIX)])]),
    ]
}

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
const TIOCSETD: u32 = 0x5423;

/// Options of `prctl` that are refused.
const REFUSED_PRCTL: [i32; 4] = [
    // It lets another process trace this one.
    libc::PR_SET_PTRACER,
    // A second program for the kernel to run as this one.
    libc::PR_SET_MM,
    // A filter is in force; more of them are of no use to the program and let it fake what calls answer.
    libc::PR_SET_SECCOMP,
    libc::PR_SET_SECUREBITS,
];

/// What holds keys may call.
const FOR_KEYS: &[i64] = &[
    // Messages, on sockets that are open; a changed vault comes as an open file.
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_fcntl,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_close,
    // Memory: for values, and pages for keys.
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_memfd_secret,
    libc::SYS_ftruncate,
    // Time and randomness.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    // Locks, signals and the end.
    libc::SYS_futex,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// A program for the kernel, that says what becomes of a call.
pub(super) struct Filter(Vec<sock_filter>);

/// The lists have become too long for the kernel, or for the jumps of its machine.
#[derive(Debug, thiserror::Error)]
#[error("the filter of system calls is too long for the kernel")]
pub(super) struct TooLong;

/// The architecture whose numbers the calls have, as the kernel names it.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where the number of a call, its architecture, and the lower half of its arguments are, for a filter.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What the kernel is to do.
const REFUSE: u32 = SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
const UNKNOWN: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

impl Filter {
    fn of(calls: &Calls) -> Result<Self, TooLong> {
        // Neighbours that are treated alike are one branch of the tree, as is what lies between them.
        let mut branches: Vec<(u32, Vec<sock_filter>)> = vec![(0, answer(UNKNOWN))];
        for (call, refusal) in calls {
            let call = u32::try_from(*call).map_err(|_negative| TooLong)?;
            let code = match refusal {
                None => answer(SECCOMP_RET_ALLOW),
                Some(refusal) => refuse_if(refusal)?,
            };
            branches.push((call, code));
            branches.push((call + 1, answer(UNKNOWN)));
        }
        // Of two that begin at the same number, the first is empty; of two that are the same, the second says nothing new.
        let mut tree: Vec<(u32, Vec<sock_filter>)> = Vec::new();
        for (from, code) in branches {
            tree.pop_if(|(last, _)| *last == from);
            if tree.last().is_none_or(|(_, last)| !same(last, &code)) {
                tree.push((from, code));
            }
        }
        let mut program = vec![
            load(ARCH),
            jump(BPF_JEQ, ARCHITECTURE, 1, 0)?,
            return_(SECCOMP_RET_KILL_PROCESS),
            load(NUMBER),
        ];
        program.extend(search(&tree)?);
        if program.len() > LONGEST { Err(TooLong) } else { Ok(Self(program)) }
    }

    /// What a process needs that holds keys and answers on sockets that are open already: memory, messages, time, randomness, and
    /// its end.
    pub(super) fn for_keys() -> Result<Self, TooLong> {
        let map = vec![vec![(2, Is::Any(libc::PROT_EXEC.cast_unsigned()))]];
        let by_argument = [(libc::SYS_mmap, map.clone()), (libc::SYS_mprotect, map)];
        let by_argument = by_argument.into_iter().map(|(call, refusal)| (call, Some(refusal)));
        Self::of(&FOR_KEYS.iter().map(|call| (*call, None)).chain(by_argument).collect())
    }

    /// Puts it in force, for this process and all that it will ever start.
    #[expect(unsafe_code, reason = "rustix does not have `seccomp`")]
    pub(super) fn apply(&self) -> Result<(), Errno> {
        let program = libc::sock_fprog {
            len: c_ushort::try_from(self.0.len()).map_err(|_long| Errno::INVAL)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the structure is the kernel's, its length is that of the program it points to, and both are only read and outlive
        // the call.
        // JUSTIFICATION: it is the one call that puts a filter in force.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if result == 0 { Ok(()) } else { Err(last_error()) }
    }
}

/// How long a filter may be.
const LONGEST: usize = 4096;

/// The tree over branches that each begin at a number: whatever is below the first one's is its.
fn search(branches: &[(u32, Vec<sock_filter>)]) -> Result<Vec<sock_filter>, TooLong> {
    let (below, above) = match branches {
        [] => return Ok(answer(UNKNOWN)),
        [(_, code)] => return Ok(code.clone()),
        _ => branches.split_at(branches.len() / 2),
    };
    let middle = above.first().map_or(0, |(from, _)| *from);
    let (below, above) = (search(below)?, search(above)?);
    // A jump under a condition reaches 255 instructions; one without reaches all.
    let mut code = match jump(BPF_JGE, middle, below.len(), 0) {
        Ok(near) => vec![near],
        Err(TooLong) => vec![jump(BPF_JGE, middle, 0, 1)?, far(below.len())?],
    };
    code.extend(below);
    code.extend(above);
    Ok(code)
}

/// Refuses a call if its arguments are so, and else allows it.
fn refuse_if(refusal: &Refusal) -> Result<Vec<sock_filter>, TooLong> {
    let mut code = Vec::new();
    for holds in refusal {
        // From the end: each condition that does not hold skips what follows of this one.
        let mut rest = answer(REFUSE);
        for (argument, is) in holds.iter().rev() {
            let mut first = vec![load(ARGUMENTS + 8 * u32::from(*argument))];
            match *is {
                Is::Any(bits) => first.push(jump(BPF_JSET, bits, 0, rest.len())?),
                Is::Equal(bits, value) => {
                    first.push(instruction(BPF_ALU | BPF_AND | BPF_K, bits));
                    first.push(jump(BPF_JEQ, value, 0, rest.len())?);
                }
                Is::Not(value) => first.push(jump(BPF_JEQ, value, rest.len(), 0)?),
            }
            first.extend(rest);
            rest = first;
        }
        code.extend(rest);
    }
    // After one that always holds there is nothing to say.
    if refusal.iter().all(|holds| !holds.is_empty()) {
        code.push(return_(SECCOMP_RET_ALLOW));
    }
    Ok(code)
}

fn answer(what: u32) -> Vec<sock_filter> {
    vec![return_(what)]
}

fn return_(what: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, what)
}

fn load(from: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, from)
}

fn far(skipped: usize) -> Result<sock_filter, TooLong> {
    Ok(instruction(BPF_JMP | libc::BPF_JA, u32::try_from(skipped).map_err(|_long| TooLong)?))
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Skips so many instructions if it is so, and so many if not.
fn jump(how: u32, k: u32, so: usize, not: usize) -> Result<sock_filter, TooLong> {
    let skipped = |count: usize| u8::try_from(count).map_err(|_long| TooLong);
    let jump = instruction(BPF_JMP | how | BPF_K, k);
    Ok(sock_filter { jt: skipped(so)?, jf: skipped(not)?, ..jump })
}

fn same(one: &[sock_filter], other: &[sock_filter]) -> bool {
    let all = |code: &[sock_filter]| -> Vec<_> { code.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect() };
    all(one) == all(other)
}

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
        let refused: BTreeSet<i64> = calls(REFUSED).collect();
        assert_eq!(allowed.intersection(&refused).collect::<Vec<_>>(), Vec::<&i64>::new());
        assert!(!allowed.contains(&libc::SYS_clone3));
        for (call, _) in by_argument().into_iter().chain(set_id()) {
            assert!(allowed.contains(&call), "{call} would be allowed with some arguments");
        }
    }

    /// What the kernel's machine answers.
    fn run(filter: &Filter, arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut value) = (0, 0_u32);
        loop {
            let libc::sock_filter { code, jt, jf, k } = filter.0[at];
            at += 1;
            let branch = |so: bool| usize::from(if so { jt } else { jf });
            match u32::from(code) {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    value = match k {
                        NUMBER => number,
                        ARCH => arch,
                        k => arguments[usize::try_from((k - ARGUMENTS) / 8).unwrap()] as u32,
                    }
                }
                c if c == BPF_ALU | BPF_AND | BPF_K => value &= k,
                c if c == BPF_JMP | libc::BPF_JA => at += usize::try_from(k).unwrap(),
                c if c == BPF_JMP | BPF_JGE | BPF_K => at += branch(value >= k),
                c if c == BPF_JMP | BPF_JEQ | BPF_K => at += branch(value == k),
                c if c == BPF_JMP | BPF_JSET | BPF_K => at += branch(value & k != 0),
                c if c == BPF_RET | BPF_K => return k,
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn the_tree_says_of_each_call_what_the_lists_say() {
        let Filters { usual, no_set_id, .. } = filters().unwrap();
        let allowed: BTreeSet<i64> = calls(ALLOWED).chain(calls(ALLOWED_HERE)).collect();
        let refused: BTreeSet<i64> = calls(REFUSED).collect();
        let by_argument: BTreeSet<i64> = by_argument().into_iter().map(|(call, _)| call).collect();
        let set_id: BTreeSet<i64> = set_id().into_iter().map(|(call, _)| call).collect();
        for (filter, also) in [(&usual, &BTreeSet::new()), (&no_set_id, &set_id)] {
            for number in (0..2000).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
                let call = i64::from(number);
                if by_argument.contains(&call) || also.contains(&call) {
                    continue;
                }
                let want = match (allowed.contains(&call), refused.contains(&call)) {
                    (true, _) => SECCOMP_RET_ALLOW,
                    (false, true) => REFUSE,
                    (false, false) => UNKNOWN,
                };
                assert_eq!(run(filter, ARCHITECTURE, number, [0; 6]), want, "{number}");
                assert_eq!(run(filter, 0x4000_0003, number, [0; 6]), SECCOMP_RET_KILL_PROCESS, "{number}");
            }
        }
    }

    #[test]
    fn without_namespaces_less_is_left() {
        let Filters { usual, alone, alone_as_owner, .. } = filters().unwrap();
        let number = |value: i32| u64::from(value.cast_unsigned());
        let (unix, inet) = (number(libc::AF_UNIX), number(libc::AF_INET));
        let (stream, datagram) =
            (number(libc::SOCK_STREAM | libc::SOCK_CLOEXEC), number(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC));
        for (call, arguments, want) in [
            (libc::SYS_socket, [unix, stream, 0], [true, false, false]),
            (libc::SYS_socket, [inet, stream, 0], [true, false, false]),
            (libc::SYS_connect, [3, 0, 0], [true, false, false]),
            (libc::SYS_socketpair, [unix, stream, 0], [true, true, true]),
            (libc::SYS_socketpair, [unix, datagram, 0], [true, false, false]),
            (libc::SYS_socketpair, [inet, stream, 0], [false, false, false]),
            (libc::SYS_prlimit64, [0, 7, 0], [true, true, true]),
            (libc::SYS_prlimit64, [4711, 7, 0], [true, false, false]),
            (libc::SYS_setpriority, [0, 0, 5], [true, true, true]),
            (libc::SYS_setpriority, [0, 4711, 5], [true, false, false]),
            (libc::SYS_prctl, [number(libc::PR_SET_DUMPABLE), 0, 0], [true, false, false]),
            (libc::SYS_prctl, [number(libc::PR_SET_NAME), 0, 0], [true, true, true]),
            (libc::SYS_prctl, [number(libc::PR_SET_PTRACER), 0, 0], [false, false, false]),
            (libc::SYS_shmget, [1, 4096, 0], [true, false, false]),
            (libc::SYS_inotify_add_watch, [3, 0, 0], [true, false, false]),
            (libc::SYS_fchmod, [3, 0o755, 0], [true, true, false]),
            (libc::SYS_fchmod, [3, 0o4755, 0], [true, false, false]),
            (libc::SYS_utimensat, [3, 0, 0], [true, true, false]),
            (libc::SYS_read, [3, 0, 0], [true, true, true]),
            (libc::SYS_mount, [0, 0, 0], [false, false, false]),
        ] {
            let [a, b, c] = arguments;
            let run = |filter| run(filter, ARCHITECTURE, u32::try_from(call).unwrap(), [a, b, c, 0, 0, 0]);
            let came = [&usual, &alone, &alone_as_owner].map(|filter| run(filter) == SECCOMP_RET_ALLOW);
            assert_eq!(came, want, "{call} {arguments:?}");
        }
    }

    #[test]
    fn arguments_decide() {
        let Filters { usual, no_set_id, .. } = filters().unwrap();
        let number = |value: i32| u64::from(value.cast_unsigned());
        let (unix, inet, netlink) = (number(libc::AF_UNIX), number(libc::AF_INET), number(libc::AF_NETLINK));
        let stream = number(libc::SOCK_STREAM | libc::SOCK_CLOEXEC);
        let raw = number(libc::SOCK_RAW | libc::SOCK_CLOEXEC);
        let user = number(libc::CLONE_NEWUSER);
        let create = number(libc::O_CREAT | libc::O_WRONLY);
        let cases = [
            (libc::SYS_socket, vec![unix, stream, 0], true, true),
            (libc::SYS_socket, vec![inet, stream, 6], true, true),
            (libc::SYS_socket, vec![inet, raw, 1], false, false),
            (libc::SYS_socket, vec![netlink, raw, 0], true, true),
            (libc::SYS_socket, vec![netlink, raw, 6], false, false),
            (libc::SYS_socket, vec![number(libc::AF_ALG), stream, 0], false, false),
            (libc::SYS_socketpair, vec![unix], true, true),
            (libc::SYS_socketpair, vec![inet], false, false),
            (libc::SYS_clone, vec![number(libc::SIGCHLD)], true, true),
            (libc::SYS_clone, vec![user | number(libc::SIGCHLD)], false, false),
            (libc::SYS_ioctl, vec![1, u64::from(TIOCSTI)], false, false),
            (libc::SYS_ioctl, vec![1, u64::from(TIOCSTI) | 1 << 32], false, false),
            (libc::SYS_ioctl, vec![1, 0x5401], true, true),
            (libc::SYS_personality, vec![0], true, true),
            (libc::SYS_personality, vec![0xffff_ffff], true, true),
            (libc::SYS_personality, vec![0x0004_0000], false, false),
            (libc::SYS_prctl, vec![number(libc::PR_SET_NAME)], true, true),
            (libc::SYS_prctl, vec![number(libc::PR_SET_SECCOMP)], false, false),
            (libc::SYS_fchmodat, vec![0, 0, 0o755], true, true),
            (libc::SYS_fchmodat, vec![0, 0, 0o4755], true, false),
            (libc::SYS_fchmodat, vec![0, 0, 0o2755], true, false),
            (libc::SYS_openat, vec![0, 0, create, 0o644], true, true),
            (libc::SYS_openat, vec![0, 0, create, 0o4644], true, false),
            (libc::SYS_openat, vec![0, 0, 0, 0o4644], true, true),
            (libc::SYS_openat2, vec![0, 0, 0, 24], true, false),
        ];
        for (call, given, usually, else_) in cases {
            let mut arguments = [0; 6];
            arguments[..given.len()].copy_from_slice(&given);
            for (filter, allowed) in [(&usual, usually), (&no_set_id, else_)] {
                let want = if allowed { SECCOMP_RET_ALLOW } else { REFUSE };
                let got = run(filter, ARCHITECTURE, u32::try_from(call).unwrap(), arguments);
                assert_eq!(got, want, "{call} {given:x?}");
            }
        }
    }

    #[test]
    fn a_kernel_may_put_itself_apart_and_no_more() {
        let Filters { no_set_id, kernel, .. } = filters().unwrap();
        let own: BTreeSet<i64> = calls(OF_A_KERNEL).collect();
        let new_user = [u64::from(libc::CLONE_NEWUSER.cast_unsigned()), 0, 0, 0, 0, 0];
        let set_id = [0, 0o4755, 0, 0, 0, 0];
        for number in 0..500 {
            let answer = |filter, arguments| run(filter, ARCHITECTURE, number, arguments);
            for arguments in [[0; 6], new_user, set_id] {
                if own.contains(&i64::from(number)) {
                    assert_eq!(answer(&kernel, arguments), SECCOMP_RET_ALLOW, "{number}");
                } else {
                    assert_eq!(answer(&kernel, arguments), answer(&no_set_id, arguments), "{number}");
                }
            }
        }
        assert_eq!(run(&no_set_id, ARCHITECTURE, u32::try_from(libc::SYS_clone).unwrap(), new_user), REFUSE);
    }

    #[test]
    fn what_is_longer_than_the_kernel_takes_is_refused() {
        let calls: Calls = (0..3000).map(|call| (2 * call, None)).collect();
        assert!(Filter::of(&calls).is_err());
    }
}
