//! Programs that want out of a cell. `cell-hostile NAME [ARGUMENT…]` tries one thing and says on its last line what came of it:
//! `contained: …`, or `ESCAPED: …`. What it did to the host, the test looks at from outside.
#![expect(
    unsafe_code,
    clippy::exit,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "it is an attacker"
)]

#[path = "network.rs"]
mod network;

use std::ffi::CString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

/// What came of an attempt.
type Attempt = Result<String, String>;

/// What is tried, by its name.
type Attempts = [(&'static str, fn(&[&str]) -> Attempt)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map(String::as_str).unwrap_or_default();
    let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let attempts: &Attempts = &[
        ("abstract", abstract_socket),
        ("attributes", attributes),
        ("bind", bind),
        ("calls", calls),
        ("connect", connect),
        ("cores", cores),
        ("descriptors", descriptors),
        ("devices", devices),
        ("disk", disk),
        ("elf-loader", elf_loader),
        ("environment", environment),
        ("families", families),
        ("forks", forks),
        ("handles", handles),
        ("hardlink", hardlink),
        ("ia32", ia32),
        ("init", init),
        ("inodes", inodes),
        ("kernel-settings", kernel_settings),
        ("learn", learn),
        ("leave", leave),
        ("memory", memory),
        ("namespaces", namespaces),
        ("neighbours", neighbours),
        ("output", output),
        ("outlive", outlive),
        ("processes", processes),
        ("read", read),
        ("recon", recon),
        ("roots", roots),
        ("setuid", setuid),
        ("show", show),
        ("show-environment", show_environment),
        ("signals", signals),
        ("spin", spin),
        ("stop", stop),
        ("terminal", terminal),
        ("threads", threads),
        ("traces", traces),
        ("udp", udp),
        ("write", write),
        ("x32", x32),
    ];
    let attempt = attempts
        .iter()
        .chain(network::ATTEMPTS)
        .find(|(known, _)| *known == name)
        .map(|(_, attempt)| attempt);
    match attempt.map(|attempt| attempt(&rest)) {
        Some(Ok(how)) => println!("contained: {how}"),
        Some(Err(how)) => println!("ESCAPED: {how}"),
        None => println!("ESCAPED: no attempt is called `{name}`"),
    }
}

/// `show PATH`: what is there, and nothing else.
fn show(paths: &[&str]) -> Attempt {
    let text = fs::read_to_string(paths[0]).unwrap_or_else(|_| "not there".to_owned());
    print!("{text}");
    std::process::exit(0)
}

/// All variables there are.
fn show_environment(_: &[&str]) -> Attempt {
    let mut all: Vec<(String, String)> = std::env::vars().collect();
    all.sort();
    all.iter().for_each(|(name, value)| println!("{name}={value}"));
    std::process::exit(0)
}

/// `attributes PATH…`: what is known of a file that cannot be written, by its name and by a descriptor.
fn attributes(paths: &[&str]) -> Attempt {
    for path in paths {
        if fs::set_permissions(path, fs::Permissions::from_mode(0o777)).is_ok() {
            return Err(format!("changed the mode of {path}"));
        }
        if let Ok(file) = fs::File::open(path)
            && (file.set_permissions(fs::Permissions::from_mode(0o777)).is_ok()
                || file.set_modified(std::time::SystemTime::UNIX_EPOCH).is_ok())
        {
            return Err(format!("changed what is known of {path}"));
        }
        if std::os::unix::fs::chown(path, Some(1), Some(1)).is_ok() {
            return Err(format!("gave {path} away"));
        }
    }
    Ok(format!("{} files stay as they are", paths.len()))
}

/// `neighbours PROCESS…`: settings of other processes, and what goes on in folders.
fn neighbours(targets: &[&str]) -> Attempt {
    for target in targets {
        let process = target.parse::<i64>().unwrap();
        let limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
        let at = (&raw const limit).expose_provenance() as i64;
        for (what, number, arguments) in [
            ("limited", libc::SYS_prlimit64, [process, i64::from(libc::RLIMIT_CPU), at, 0, 0, 0]),
            ("slowed down", libc::SYS_setpriority, [0, process, 19, 0, 0, 0]),
            ("moved", libc::SYS_sched_setaffinity, [process, 8, at, 0, 0, 0]),
        ] {
            if call(number, arguments).is_ok() {
                return Err(format!("{what} process {target}"));
            }
        }
    }
    let watch = call(libc::SYS_inotify_init1, [0; 6]).map_err(|error| error.to_string())?;
    let home = CString::new("/var/tmp").unwrap();
    let at = home.as_ptr().expose_provenance() as i64;
    if call(libc::SYS_inotify_add_watch, [watch, at, 0xfff, 0, 0, 0]).is_ok() {
        return Err("watches a folder of the host".to_owned());
    }
    let mut pair = [0_i32; 2];
    let made = (&raw mut pair).expose_provenance() as i64;
    if call(libc::SYS_socketpair, [1, 2, 0, made, 0, 0]).is_ok() {
        return Err("has a socket that can be connected to others".to_owned());
    }
    call(libc::SYS_socketpair, [1, 1, 0, made, 0, 0]).map_err(|error| error.to_string())?;
    Ok("nobody is disturbed".to_owned())
}

/// A file in the folder for what is there for a while, or the folder.
fn temp(name: &str) -> String {
    let folder = std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".to_owned());
    if name.is_empty() { folder } else { format!("{folder}/{name}") }
}

fn last() -> std::io::Error {
    std::io::Error::last_os_error()
}

/// Makes a system call that must not succeed.
fn call(number: i64, arguments: [i64; 6]) -> std::io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: it is an attacker: whatever the kernel does with these is what is tried.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(last()) } else { Ok(result) }
}

/// Every one of these has to fail.
fn all_fail(attempts: Vec<(String, std::io::Result<i64>)>) -> Attempt {
    let done: Vec<String> =
        attempts.iter().filter(|(_, result)| result.is_ok()).map(|(name, _)| name.clone()).collect();
    if done.is_empty() { Ok(format!("{} attempts failed", attempts.len())) } else { Err(done.join(", ")) }
}

/// Files of the host: `read PATH…`, directly and through every magic link there is.
fn read(paths: &[&str]) -> Attempt {
    let mut tried = 0;
    for path in paths {
        for prefix in ["", "/proc/self/root", "/proc/1/root", "/proc/self/root/../..", "/proc/1/cwd/../../.."]
        {
            tried += 1;
            let path = format!("{prefix}{path}");
            if let Ok(bytes) = fs::read(&path) {
                return Err(format!("read {} bytes of {path}", bytes.len()));
            }
            let link = temp(&format!("link{tried}"));
            if std::os::unix::fs::symlink(&path, &link).is_ok() && fs::read(&link).is_ok() {
                return Err(format!("read {path} through a link"));
            }
        }
    }
    Ok(format!("{tried} paths are not there"))
}

/// `write PATH…`: makes and changes files.
fn write(paths: &[&str]) -> Attempt {
    for path in paths {
        for prefix in ["", "/proc/self/root", "/proc/1/root"] {
            let path = format!("{prefix}{path}");
            if fs::write(&path, "pwned").is_ok() {
                return Err(format!("wrote {path}"));
            }
            if fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).is_ok() {
                return Err(format!("changed the mode of {path}"));
            }
            if fs::remove_file(&path).is_ok() {
                return Err(format!("removed {path}"));
            }
        }
    }
    Ok(format!("{} paths cannot be written", paths.len()))
}

/// Roots of other processes, and ways above our own.
fn roots(_: &[&str]) -> Attempt {
    let ours = fs::metadata("/").unwrap();
    for path in ["/..", "/../../..", "/proc/self/root/..", "/proc/1/root/..", "/proc/self/cwd/../../../.."] {
        if let Ok(found) = fs::metadata(path)
            && (found.dev(), found.ino()) != (ours.dev(), ours.ino())
        {
            return Err(format!("{path} is another root"));
        }
    }
    let text = CString::new("/tmp").unwrap();
    if call(libc::SYS_chroot, [text.as_ptr() as i64, 0, 0, 0, 0, 0]).is_ok() {
        return Err("chroot".to_owned());
    }
    Ok("there is one root".to_owned())
}

/// Descriptors that were left open for us.
fn descriptors(_: &[&str]) -> Attempt {
    let mut found = Vec::new();
    for number in 3..4096 {
        // SAFETY: it asks about a number.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } != -1 {
            found.push(format!("{number} {:?}", fs::read_link(format!("/proc/self/fd/{number}"))));
        }
    }
    if found.is_empty() { Ok("none but the three".to_owned()) } else { Err(found.join(", ")) }
}

fn hardlink(paths: &[&str]) -> Attempt {
    for path in paths.iter().chain(&["/usr/bin/env", "/bin/sh"]) {
        if fs::hard_link(path, temp("hard")).is_ok() {
            return Err(format!("linked {path}"));
        }
    }
    Ok("no link to what is read-only".to_owned())
}

/// Programs that give rights to whoever runs them.
fn setuid(_: &[&str]) -> Attempt {
    // Not by `fs::copy`, which sets a mode.
    let mut new = fs::File::options();
    std::os::unix::fs::OpenOptionsExt::mode(new.create(true).truncate(true).write(true), 0o755);
    let copied = fs::read("/usr/bin/id").and_then(|program| new.open(temp("id"))?.write_all(&program));
    copied.map_err(|error| error.to_string())?;
    // The bits may be set on a file in memory of the cell; they must mean nothing, here or outside.
    let _ = fs::set_permissions(temp("id"), fs::Permissions::from_mode(0o6755));
    // SAFETY: both ask about this process.
    let (no_new, own) = unsafe { (libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, libc::getuid()) };
    let out = std::process::Command::new(temp("id")).arg("-u").output().map_err(|error| error.to_string())?;
    match (no_new, String::from_utf8_lossy(&out.stdout).trim()) {
        (true, user) if user == own.to_string() => Ok("they give nothing".to_owned()),
        (no_new, user) => Err(format!("no new privileges: {no_new}, user {user}")),
    }
}

/// Leaves things for the next cell, or finds them: `leave`.
fn leave(_: &[&str]) -> Attempt {
    let mark = "left-by-a-cell";
    let own = std::env::var("TMPDIR").unwrap_or_else(|_| "/srv".to_owned());
    for folder in [&*own, "/tmp", "/dev/shm", "/var/tmp", "/run", "/home", "/root", "/"] {
        let path = format!("{folder}/{mark}");
        if fs::metadata(&path).is_ok() {
            return Err(format!("found {path}"));
        }
        let _ = fs::write(&path, mark);
    }
    let key = 0x7067;
    // SAFETY: System V memory by number, which nothing else here uses.
    let found = unsafe { libc::shmget(key, 4096, 0) };
    if found != -1 {
        return Err("found System V memory".to_owned());
    }
    // SAFETY: as above.
    let _ = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
    let name = CString::new("/toolgate-left").unwrap();
    // SAFETY: a name that ends with zero.
    if unsafe { libc::mq_open(name.as_ptr(), libc::O_RDONLY) } != -1 {
        return Err("found a message queue".to_owned());
    }
    Ok("left something everywhere, and found nothing".to_owned())
}

/// Files by number instead of by name.
fn handles(_: &[&str]) -> Attempt {
    let path = CString::new("/usr").unwrap();
    let mut handle = [0_u64; 32];
    handle[0] = 128;
    let mut mount = 0_i32;
    let named = call(
        libc::SYS_name_to_handle_at,
        [
            i64::from(libc::AT_FDCWD),
            path.as_ptr() as i64,
            handle.as_mut_ptr() as i64,
            &raw mut mount as i64,
            0,
            0,
        ],
    );
    let opened =
        call(libc::SYS_open_by_handle_at, [i64::from(libc::AT_FDCWD), handle.as_ptr() as i64, 0, 0, 0, 0]);
    all_fail(vec![("name_to_handle_at".to_owned(), named), ("open_by_handle_at".to_owned(), opened)])
}

fn devices(_: &[&str]) -> Attempt {
    let path = CString::new("/tmp/disk").unwrap();
    for (kind, major, minor) in [(libc::S_IFBLK, 254, 0), (libc::S_IFCHR, 1, 1), (libc::S_IFCHR, 10, 229)] {
        // SAFETY: a name that ends with zero.
        if unsafe { libc::mknod(path.as_ptr(), kind | 0o666, libc::makedev(major, minor)) } == 0 {
            return Err(format!("made device {major}:{minor}"));
        }
    }
    for path in [
        "/dev/mem",
        "/dev/kmsg",
        "/dev/vda",
        "/dev/sda",
        "/dev/kvm",
        "/dev/fuse",
        "/dev/net/tun",
        "/dev/loop0",
    ] {
        if fs::File::open(path).is_ok() {
            return Err(format!("opened {path}"));
        }
    }
    for what in ["proc", "tmpfs", "overlay", "fuse"] {
        let name = CString::new(what).unwrap();
        let at = CString::new("/tmp").unwrap();
        if call(libc::SYS_mount, [name.as_ptr() as i64, at.as_ptr() as i64, name.as_ptr() as i64, 0, 0, 0])
            .is_ok()
        {
            return Err(format!("mounted {what}"));
        }
    }
    Ok("no device, no mount".to_owned())
}

/// `connect HOST:PORT…`: none of them may be reached.
fn connect(targets: &[&str]) -> Attempt {
    for target in targets {
        let Ok(addresses) = target.to_socket_addrs() else { continue };
        for address in addresses {
            if TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok() {
                return Err(format!("reached {address}"));
            }
        }
    }
    Ok(format!("{} targets cannot be reached", targets.len()))
}

fn udp(targets: &[&str]) -> Attempt {
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else { return Ok("there are no sockets".to_owned()) };
    for target in targets {
        if socket.send_to(b"out", target).is_ok() {
            return Err(format!("sent to {target}"));
        }
    }
    Ok("nothing was sent".to_owned())
}

/// `abstract NAME PATH…`: sockets of the host.
fn abstract_socket(names: &[&str]) -> Attempt {
    for name in names {
        let address = <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).unwrap();
        if UnixStream::connect_addr(&address).is_ok() {
            return Err(format!("reached @{name}"));
        }
        if UnixStream::connect(name).is_ok() {
            return Err(format!("reached {name}"));
        }
    }
    Ok("no socket of the host".to_owned())
}

/// `bind PORT`: listens, for the host to try.
fn bind(ports: &[&str]) -> Attempt {
    let port = ports.first().map_or("0", |port| *port);
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).map_err(|error| error.to_string())?;
    println!("listening");
    std::io::stdout().flush().unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    if listener.accept().is_ok() { Err("somebody came".to_owned()) } else { Ok("nobody came".to_owned()) }
}

/// Ends with grandchildren that want to live on. They write to `/tmp` what they are for somebody to look for.
fn outlive(marks: &[&str]) -> Attempt {
    let mark = marks.first().unwrap();
    let script =
        format!("setsid sh -c 'trap \"\" TERM HUP INT; exec -a {mark} sleep 1000' >/dev/null 2>&1 &");
    let status = std::process::Command::new("/bin/bash").args(["-c", &script]).status();
    status.map(|_| "left a grandchild behind".to_owned()).map_err(|error| error.to_string())
}

/// Does not end, whatever it is asked.
fn stop(_: &[&str]) -> Attempt {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: ignoring a signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: it stops this process.
    unsafe { libc::raise(libc::SIGSTOP) };
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

/// Spins, and has a grandchild that spins.
fn spin(marks: &[&str]) -> Attempt {
    let mark = marks.first().unwrap_or(&"spinner");
    let script =
        format!("setsid bash -c 'exec -a {mark} sh -c \"while :; do :; done\"' & while :; do :; done");
    let _ = std::process::Command::new("/bin/bash").args(["-c", &script]).status();
    Err("it ended".to_owned())
}

/// Processes of the host, seen or signalled.
fn processes(_: &[&str]) -> Attempt {
    let mut seen = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Ok("they cannot be listed".to_owned()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            seen.push(name);
        }
    }
    if seen.len() > 3 {
        return Err(format!("sees processes {}", seen.join(" ")));
    }
    Ok(format!("sees {} processes, all of them its own", seen.len()))
}

/// Signals to everything.
fn signals(targets: &[&str]) -> Attempt {
    for target in targets {
        let pid: i32 = target.parse().unwrap();
        // SAFETY: it signals a process, which is what is tried.
        if unsafe { libc::kill(pid, libc::SIGKILL) } == 0 {
            return Err(format!("signalled {pid}"));
        }
    }
    // The first process of the cell has no handlers, so what it is sent from inside does nothing.
    // SAFETY: as above.
    let _ = unsafe { libc::kill(1, libc::SIGKILL) };
    Ok("nobody was signalled".to_owned())
}

/// The first process of the cell, which has the socket to the gate.
fn init(_: &[&str]) -> Attempt {
    for name in ["environ", "maps", "mem", "fd", "cwd", "exe", "root", "auxv", "stack", "io", "fdinfo"] {
        let path = format!("/proc/1/{name}");
        let read = fs::read(&path).map(|bytes| bytes.len());
        let listed = fs::read_dir(&path).map(|entries| entries.count());
        let linked = fs::read_link(&path);
        if read.is_ok() || listed.is_ok_and(|count| count > 0) || linked.is_ok() {
            return Err(format!("looked into {path}"));
        }
    }
    Ok("it cannot be looked into".to_owned())
}

fn traces(_: &[&str]) -> Attempt {
    let mut buffer = [0_u8; 16];
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 16 };
    let vector = &raw const local as i64;
    let mut child = std::process::Command::new("/bin/sleep").arg("5").spawn().unwrap();
    let child_id = i64::from(child.id());
    let attempts = vec![
        ("ptrace init".to_owned(), call(libc::SYS_ptrace, [16, 1, 0, 0, 0, 0])),
        ("ptrace a child".to_owned(), call(libc::SYS_ptrace, [16, child_id, 0, 0, 0, 0])),
        ("process_vm_readv".to_owned(), call(libc::SYS_process_vm_readv, [1, vector, 1, vector, 1, 0])),
        ("process_vm_writev".to_owned(), call(libc::SYS_process_vm_writev, [1, vector, 1, vector, 1, 0])),
        ("kcmp".to_owned(), call(libc::SYS_kcmp, [1, child_id, 0, 0, 0, 0])),
        ("pidfd_getfd".to_owned(), {
            let init = call(libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0]).unwrap_or(-1);
            call(libc::SYS_pidfd_getfd, [init, 0, 0, 0, 0, 0])
        }),
    ];
    child.kill().and_then(|()| child.wait()).unwrap();
    all_fail(attempts)
}

/// Types into the terminal of whoever started the gate.
fn terminal(_: &[&str]) -> Attempt {
    if fs::File::open("/dev/tty").is_ok() {
        return Err("there is a terminal".to_owned());
    }
    for number in 0..3 {
        for request in [libc::TIOCSTI, 0x541c] {
            let byte = b'x';
            // SAFETY: it gives the kernel one byte.
            if unsafe { libc::ioctl(number, request as _, &raw const byte) } == 0 {
                return Err(format!("typed into {number}"));
            }
        }
    }
    Ok("no terminal".to_owned())
}

/// Programs that are not on any list of programs. In a cell that matters to nobody: they run, and reach no more.
fn elf_loader(_: &[&str]) -> Attempt {
    let user = || fs::read_to_string("/proc/self/status").unwrap();
    let status = user();
    let filters = status.lines().any(|line| line == "Seccomp:\t2");
    let out = std::process::Command::new("/lib64/ld-linux-x86-64.so.2")
        .args(["/usr/bin/cat", "/proc/self/status"])
        .output();
    let out = String::from_utf8_lossy(&out.map_err(|error| error.to_string())?.stdout).into_owned();
    let inherited = out.lines().any(|line| line == "Seccomp:\t2")
        && out.lines().any(|line| line == "CapEff:\t0000000000000000");
    if filters && inherited {
        Ok("it runs with the same filters".to_owned())
    } else {
        Err("filters got lost".to_owned())
    }
}

fn namespaces(_: &[&str]) -> Attempt {
    let flags = [
        ("user", libc::CLONE_NEWUSER),
        ("mount", libc::CLONE_NEWNS),
        ("net", libc::CLONE_NEWNET),
        ("pid", libc::CLONE_NEWPID),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("time", 0x80),
    ];
    let mut attempts = Vec::new();
    for (name, flag) in flags {
        attempts.push((format!("unshare {name}"), call(libc::SYS_unshare, [i64::from(flag), 0, 0, 0, 0, 0])));
        let cloned = call(libc::SYS_clone, [i64::from(flag) | i64::from(libc::SIGCHLD), 0, 0, 0, 0, 0]);
        if matches!(cloned, Ok(0)) {
            // SAFETY: the child of a clone that should not have been.
            unsafe { libc::_exit(0) };
        }
        // The flag of a namespace of time is the lowest byte of the signal for `clone`, where it means something else.
        if name != "time" {
            attempts.push((format!("clone {name}"), cloned));
        }
    }
    let arguments = [u64::from(libc::CLONE_NEWUSER.cast_unsigned()), 0, 0, 0, 17, 0, 0, 0];
    let clone3 = call(libc::SYS_clone3, [arguments.as_ptr() as i64, 64, 0, 0, 0, 0]);
    if matches!(clone3, Ok(0)) {
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    attempts.push(("clone3".to_owned(), clone3));
    for name in ["user", "mnt", "net", "pid"] {
        if let Ok(file) = fs::File::open(format!("/proc/1/ns/{name}")) {
            let number = i64::from(std::os::fd::AsRawFd::as_raw_fd(&file));
            attempts.push((format!("setns {name}"), call(libc::SYS_setns, [number, 0, 0, 0, 0, 0])));
        }
    }
    all_fail(attempts)
}

/// Large parts of the kernel behind one call each.
fn calls(_: &[&str]) -> Attempt {
    let mut space = [0_u64; 64];
    let p = space.as_mut_ptr() as i64;
    let text = CString::new("user").unwrap();
    let t = text.as_ptr() as i64;
    let tried: Vec<(&str, i64, [i64; 6])> = vec![
        ("acct", libc::SYS_acct, [0, 0, 0, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [t, t, p, 8, -3, 0]),
        ("bpf", libc::SYS_bpf, [0, p, 72, 0, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [t, 0, 0, 0, 0, 0]),
        ("fanotify_init", libc::SYS_fanotify_init, [0, 0, 0, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [0, t, 0, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [t, 0, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [p, 8, t, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [8, p, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, -3, 1, 0, 0, 0]),
        ("memfd_secret", libc::SYS_memfd_secret, [0, 0, 0, 0, 0, 0]),
        ("modify_ldt", libc::SYS_modify_ldt, [0, p, 64, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [-100, t, 1, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [p, 0, -1, -1, 0, 0]),
        ("personality", libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [t, t, 0, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [0, 0, 0, 0, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0, 0]),
        ("request_key", libc::SYS_request_key, [t, t, 0, -3, 0, 0]),
        ("seccomp", libc::SYS_seccomp, [2, 0, p, 0, 0, 0]),
        ("sethostname", libc::SYS_sethostname, [t, 4, 0, 0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [p, 0, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [t, 0, 0, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [3, p, 64, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]),
        ("vmsplice", libc::SYS_vmsplice, [1, p, 0, 0, 0, 0]),
    ];
    let attempts = tried
        .into_iter()
        .map(|(name, number, arguments)| (name.to_owned(), call(number, arguments)))
        .collect();
    all_fail(attempts)
}

/// Families and kinds of sockets that lead to rarely tried code.
fn families(_: &[&str]) -> Attempt {
    let mut attempts = Vec::new();
    let allowed = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    for family in (0..64).filter(|family| !allowed.contains(family)) {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET] {
            attempts.push((
                format!("family {family} kind {kind}"),
                call(libc::SYS_socket, [family.into(), kind.into(), 0, 0, 0, 0]),
            ));
        }
    }
    for protocol in 1..32 {
        let netlink = [libc::AF_NETLINK.into(), libc::SOCK_RAW.into(), protocol, 0, 0, 0];
        attempts.push((format!("netlink {protocol}"), call(libc::SYS_socket, netlink)));
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (kind, protocol) in
            [(libc::SOCK_RAW, 1), (libc::SOCK_RAW, 255), (libc::SOCK_DCCP, 0), (libc::SOCK_RDM, 0)]
        {
            attempts.push((
                format!("family {family} kind {kind}"),
                call(libc::SYS_socket, [family.into(), kind.into(), protocol, 0, 0, 0]),
            ));
        }
    }
    all_fail(attempts)
}

/// What a child says that was answered: nothing that it is ended with says the same.
const ANSWERED: i32 = 77;

/// A system call in the numbers of 32-bit programs, past a filter that knows only others.
fn ia32(_: &[&str]) -> Attempt {
    // SAFETY: the child asks for its number by the 32-bit gate, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `getpid` of 32-bit programs; it changes one register.
        unsafe {
            let mut result: i32 = 20;
            std::arch::asm!("int 0x80", inout("eax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            libc::_exit(if result > 0 { ANSWERED } else { 0 });
        }
        #[cfg(not(target_arch = "x86_64"))]
        // SAFETY: it ends the child.
        unsafe {
            libc::_exit(0)
        };
    }
    let mut status = 0;
    // SAFETY: it waits for the child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == ANSWERED {
        return Err("a 32-bit call was answered".to_owned());
    }
    Ok("32-bit calls end the process, or fail".to_owned())
}

fn x32(_: &[&str]) -> Attempt {
    let bit = 0x4000_0000;
    all_fail(vec![
        ("x32 getpid".to_owned(), call(bit | libc::SYS_getpid, [0; 6])),
        ("x32 unshare".to_owned(), call(bit | libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0])),
        ("x32 ptrace".to_owned(), call(bit | 521, [16, 1, 0, 0, 0, 0])),
    ])
}

/// Settings of the kernel that are not this cell's alone.
fn kernel_settings(_: &[&str]) -> Attempt {
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/proc/self/oom_score_adj",
        "/proc/self/uid_map",
        "/proc/self/gid_map",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/memory/release_agent",
    ] {
        let opened = fs::OpenOptions::new().write(true).open(path);
        if let Ok(mut file) = opened {
            // The masks are `/dev/null`, which takes everything and does nothing.
            let is_null = file.metadata().is_ok_and(|found| found.rdev() == libc::makedev(1, 3));
            if !is_null && file.write_all(b"0").is_ok() {
                return Err(format!("wrote {path}"));
            }
        }
    }
    Ok("no setting can be written".to_owned())
}

/// Core dumps, into a file or into a program of the host.
fn cores(_: &[&str]) -> Attempt {
    let status =
        std::process::Command::new("/bin/sh").args(["-c", "kill -SEGV $$"]).current_dir(temp("")).status();
    let dumped =
        std::os::unix::process::ExitStatusExt::core_dumped(&status.map_err(|error| error.to_string())?);
    let files = fs::read_dir(temp(""))
        .unwrap()
        .flatten()
        .any(|e| e.file_name().to_string_lossy().starts_with("core"));
    if dumped || files { Err("a core was dumped".to_owned()) } else { Ok("no core".to_owned()) }
}

/// Forks until it cannot.
fn forks(_: &[&str]) -> Attempt {
    let mut made = 0;
    while made < 100_000 {
        // SAFETY: the child waits to be killed.
        match unsafe { libc::fork() } {
            -1 => return Ok(format!("after {made} forks: {}", last())),
            0 => loop {
                std::thread::sleep(Duration::from_secs(1000));
            },
            _ => made += 1,
        }
    }
    Err(format!("{made} forks"))
}

fn threads(_: &[&str]) -> Attempt {
    let mut made = 0;
    while made < 100_000 {
        let thread = std::thread::Builder::new().stack_size(16 << 10).spawn(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1000));
            }
        });
        if let Err(error) = thread {
            return Ok(format!("after {made} threads: {error}"));
        }
        made += 1;
    }
    Err(format!("{made} threads"))
}

/// `memory KIND MIB`: takes so much of one kind.
fn memory(arguments: &[&str]) -> Attempt {
    let (kind, mib) = (arguments[0], arguments[1].parse::<usize>().unwrap());
    let page = vec![1_u8; 1 << 20];
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut files = Vec::new();
    for taken in 0..mib {
        let failed = match kind {
            "heap" => {
                let mut next = Vec::new();
                let reserved = next.try_reserve_exact(1 << 20);
                if reserved.is_ok() {
                    next.resize(1 << 20, 1);
                    held.push(next);
                }
                reserved.err().map(|error| error.to_string())
            }
            "memfd" => {
                let name = CString::new("hog").unwrap();
                let number = call(libc::SYS_memfd_create, [name.as_ptr() as i64, 0, 0, 0, 0, 0]);
                let written = number.and_then(|number| {
                    // SAFETY: the descriptor was just made.
                    let mut file: fs::File =
                        unsafe { std::os::fd::FromRawFd::from_raw_fd(i32::try_from(number).unwrap()) };
                    file.write_all(&page)?;
                    files.push(file);
                    Ok(())
                });
                written.err().map(|error| error.to_string())
            }
            "tmpfs" => fs::File::create(temp(&taken.to_string()))
                .and_then(|mut file| file.write_all(&page))
                .err()
                .map(|error| error.to_string()),
            "pipes" => fill_pipes(&mut files).err().map(|error| error.to_string()),
            "sockets" => fill_sockets(&mut files).err().map(|error| error.to_string()),
            other => return Err(format!("no kind `{other}`")),
        };
        if let Some(why) = failed {
            return Ok(format!("{taken} MiB of {kind}, then: {why}"));
        }
    }
    Err(format!("took {mib} MiB of {kind}"))
}

/// A mebibyte in the buffers of pipes that nobody reads.
fn fill_pipes(held: &mut Vec<fs::File>) -> std::io::Result<()> {
    let mut left = 1 << 20;
    while left > 0_usize {
        let (reader, writer) = std::io::pipe()?;
        let [reader, mut writer] = [std::os::fd::OwnedFd::from(reader), writer.into()].map(fs::File::from);
        set_nonblocking(&writer);
        // Where that is refused, the pipe is as large as it was.
        call(
            libc::SYS_fcntl,
            [i64::from(writer.as_raw_fd()), i64::from(libc::F_SETPIPE_SZ), 1 << 20, 0, 0, 0],
        )
        .ok();
        left = left.saturating_sub(fill(&mut writer));
        held.extend([reader, writer]);
    }
    Ok(())
}

/// The same in sockets.
fn fill_sockets(held: &mut Vec<fs::File>) -> std::io::Result<()> {
    let mut left = 1 << 20;
    while left > 0_usize {
        let (one, other) = UnixStream::pair()?;
        let [one, mut other] = [one, other].map(|end| fs::File::from(std::os::fd::OwnedFd::from(end)));
        set_nonblocking(&other);
        left = left.saturating_sub(fill(&mut other));
        held.extend([one, other]);
    }
    Ok(())
}

fn set_nonblocking(file: &fs::File) {
    // SAFETY: it sets a flag of a descriptor that is open.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
}

/// Writes until there is no room; says how much there was.
fn fill(file: &mut fs::File) -> usize {
    let part = [1; 4096];
    let mut written = 0;
    while let Ok(length) = file.write(&part) {
        written += length;
    }
    written.max(1)
}

/// `disk MIB`: writes so much, and a file that seems larger than any disk.
fn disk(arguments: &[&str]) -> Attempt {
    let mib: u64 = arguments[0].parse().unwrap();
    // SAFETY: ignoring a signal, so that the limit is an error.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let sparse = fs::File::create(temp("sparse")).unwrap();
    let stretched = sparse.set_len(1 << 40);
    fs::remove_file(temp("sparse")).unwrap();
    if stretched.is_ok() {
        return Err("a file of 1 TiB".to_owned());
    }
    let mut file = fs::File::create(temp("large")).unwrap();
    for written in 0..mib {
        if let Err(error) = file.write_all(&vec![1; 1 << 20]) {
            return Ok(format!("{written} MiB, then: {error}"));
        }
    }
    Err(format!("wrote {mib} MiB"))
}

fn inodes(_: &[&str]) -> Attempt {
    for made in 0..1_000_000 {
        if let Err(error) = fs::File::create(temp(&made.to_string())) {
            return Ok(format!("{made} files, then: {error}"));
        }
    }
    Err("a million files".to_owned())
}

/// Writes without end.
fn output(_: &[&str]) -> Attempt {
    let line = vec![b'x'; 1 << 16];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(600) {
        if std::io::stdout().write_all(&line).is_err() {
            return Ok("nobody reads any more".to_owned());
        }
    }
    Err("wrote for ten minutes".to_owned())
}

/// `environment CANARY…`: nothing of the host's environment may be anywhere.
fn environment(canaries: &[&str]) -> Attempt {
    let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    if names != ["PATH"] {
        return Err(format!("finds {}", names.join(" ")));
    }
    for path in ["/proc/self/environ", "/proc/1/environ", "/proc/self/cmdline", "/proc/1/cmdline"] {
        let mut text = Vec::new();
        let _ = fs::File::open(path).and_then(|mut file| file.read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text).into_owned();
        if path.contains('1') && canaries.iter().any(|canary| text.contains(canary)) {
            return Err(format!("a secret is in {path}"));
        }
    }
    Ok("nothing but PATH".to_owned())
}

/// What one looks at first, to learn where one is.
fn recon(canaries: &[&str]) -> Attempt {
    let mut found = Vec::new();
    for path in [
        "/etc/shadow",
        "/etc/hostname",
        "/etc/machine-id",
        "/root",
        "/home",
        "/run",
        "/var",
        "/sys/class",
        "/boot",
        "/.dockerenv",
        "/proc/kcore",
        "/proc/kallsyms",
        "/proc/keys",
        "/proc/kmsg",
        "/proc/timer_list",
        "/proc/modules",
        "/proc/acpi/wakeup",
        "/proc/scsi/scsi",
        "/var/run/docker.sock",
        "/run/containerd",
        "/dev/disk",
        "/dev/mapper",
    ] {
        if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
            || fs::read(path).is_ok_and(|bytes| !bytes.is_empty())
        {
            found.push(path.to_owned());
        }
    }
    // Where it cannot be read, nothing can be learned from it.
    let status = fs::read_to_string("/proc/self/status").ok();
    for (name, want) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let Some(status) = &status else { break };
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap_or_default();
        if line.trim() != want {
            found.push(format!("{name} {}", line.trim()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(
        canaries
            .iter()
            .filter(|canary| mounts.contains(**canary))
            .map(|canary| format!("{canary} in mountinfo")),
    );
    if found.is_empty() { Ok("nothing of the host".to_owned()) } else { Err(found.join(", ")) }
}

/// What of `/proc` a cell is meant to see; the rest is empty.
const SHOWN: &[&str] = &[
    "cgroups",
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "mounts",
    "net",
    "self",
    "stat",
    "sys",
    "thread-self",
    "uptime",
    "version",
    "vmstat",
];

/// `learn SECRET…`: looks through everything that can be read for what tells which host this is, and for these words of the host.
fn learn(secrets: &[&str]) -> Attempt {
    let mut found = Vec::new();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_process(&name) || SHOWN.contains(&name.as_str()) {
            continue;
        }
        let something = match entry.path().is_dir() {
            true => fs::read_dir(entry.path()).is_ok_and(|mut entries| entries.next().is_some()),
            false => {
                fs::File::open(entry.path()).is_ok_and(|mut file| file.read(&mut [0]).is_ok_and(|n| n > 0))
            }
        };
        if something {
            found.push(format!("/proc/{name}"));
        }
    }
    for gone in
        ["/sys", "/run", "/boot", "/root", "/etc/machine-id", "/var/lib", "/dev/mem", "/dev/kmsg", "/dev/tty"]
    {
        if fs::symlink_metadata(gone).is_ok() {
            found.push(gone.to_owned());
        }
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut is = |what: &str, holds: bool, seen: String| {
        if !holds {
            found.push(format!("{what}: {}", seen.trim()));
        }
    };
    let interfaces: Vec<String> = read("/proc/net/dev")
        .lines()
        .skip(2)
        .map(|line| line.split(':').next().unwrap_or_default().trim().to_owned())
        .collect();
    is("interfaces", interfaces == ["lo"], format!("{interfaces:?}"));
    let cgroup = read("/proc/self/cgroup");
    is("cgroup", cgroup.lines().all(|line| line.ends_with(":/")), cgroup);
    let map = read("/proc/self/uid_map");
    let words: Vec<&str> = map.split_whitespace().collect();
    is("users", matches!(words.as_slice(), ["1000", _, "1"]), map.clone());
    for (path, want) in [
        ("/proc/sys/kernel/hostname", "cell"),
        ("/proc/sys/kernel/domainname", "(none)"),
        ("/proc/sys/kernel/random/boot_id", ""),
        ("/proc/net/unix", "Num       RefCount Protocol Flags    Type St Inode Path"),
        (
            "/proc/net/route",
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
        ),
    ] {
        let seen = read(path);
        is(path, seen.trim() == want, seen);
    }
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.filter(|entry| is_process(&entry.file_name().to_string_lossy())).count();
    is("processes", processes == 2, processes.to_string());
    let mut looked = 0;
    for top in ["/proc/self", "/proc/1", "/proc/sys", "/proc", "/etc", "/dev", "/var", "/home", "/tmp"] {
        search(std::path::Path::new(top), secrets, 6, &mut looked, &mut found);
    }
    if found.is_empty() {
        Ok(format!("nothing of the host in {looked} files"))
    } else {
        Err(found.join(", "))
    }
}

/// Looks for words in all files below a folder.
fn search(
    folder: &std::path::Path,
    words: &[&str],
    depth: usize,
    looked: &mut usize,
    found: &mut Vec<String>,
) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            // Of processes, these two are looked at by name; threads and descriptors are theirs again.
            let skipped = name.bytes().all(|byte| byte.is_ascii_digit())
                || ["task", "fd", "map_files"].contains(&name.as_str());
            if depth > 0 && !skipped {
                search(&path, words, depth - 1, looked, found);
            }
        } else if kind.is_file() && !["mem", "pagemap", "cmdline"].contains(&name.as_str()) {
            let mut text = Vec::new();
            if fs::File::open(&path).is_ok_and(|file| file.take(1 << 20).read_to_end(&mut text).is_ok()) {
                *looked += 1;
                let text = String::from_utf8_lossy(&text);
                found.extend(
                    words
                        .iter()
                        .filter(|word| text.contains(**word))
                        .map(|word| format!("`{word}` in {}", path.display())),
                );
            }
        }
    }
}
