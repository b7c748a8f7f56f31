//! Memory for keys: on a page of its own that is never written to disk, never part of a core dump, never inherited by a
//! child, and, where the kernel has `memfd_secret` (Linux 5.14), not even in the kernel's own map of memory: reading it
//! through `/proc/PID/mem` fails.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// How long a key is, in bytes.
pub const KEY_BYTES: usize = 32;

/// One page is mapped for each key: keys are few.
const PAGE: usize = 4096;

/// A key of 32 bytes in memory of its own. Wiped when it is dropped.
pub struct GuardedKey {
    page: NonNull<u8>,
    secret: bool,
}

// SAFETY: the page belongs to this value alone; it is written once, before anybody else sees it, and in `drop`.
#[expect(unsafe_code, reason = "a pointer to memory that one value owns")]
unsafe impl Send for GuardedKey {}
// SAFETY: shared references only read.
#[expect(unsafe_code, reason = "a pointer to memory that one value owns")]
unsafe impl Sync for GuardedKey {}

impl GuardedKey {
    /// Copies a key into memory of its own. The copy that is given is the caller's to wipe.
    ///
    /// # Errors
    /// The system gives no memory that stays in memory.
    #[expect(unsafe_code, reason = "the standard library cannot map memory")]
    pub fn new(key: &[u8; KEY_BYTES]) -> io::Result<Self> {
        let (page, secret) = match secret_page() {
            Ok(page) => (page, true),
            Err(_unknown_or_switched_off) => (locked_page()?, false),
        };
        // SAFETY: `page` is a mapping of `PAGE` bytes that nothing else knows of, readable and writable.
        unsafe {
            std::ptr::copy_nonoverlapping(key.as_ptr(), page.as_ptr(), KEY_BYTES);
        }
        Ok(Self { page, secret })
    }

    /// The key.
    #[must_use]
    #[expect(unsafe_code, reason = "reads the mapping")]
    pub fn get(&self) -> &[u8; KEY_BYTES] {
        // SAFETY: the first `KEY_BYTES` bytes were written in `new`, and the mapping lives as long as `self`.
        unsafe { self.page.cast::<[u8; KEY_BYTES]>().as_ref() }
    }

    /// Whether not even the kernel has it in its map of memory.
    #[must_use]
    pub const fn is_secret(&self) -> bool {
        self.secret
    }
}

impl Drop for GuardedKey {
    #[expect(unsafe_code, reason = "wipes and unmaps the page")]
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nobody holds a reference to it any more. A volatile write is not
        // left out, though nothing reads it.
        unsafe {
            for at in 0..KEY_BYTES {
                self.page.add(at).write_volatile(0);
            }
            libc::munmap(self.page.as_ptr().cast(), PAGE);
        }
    }
}

impl fmt::Debug for GuardedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuardedKey(not shown)")
    }
}

/// A page that the kernel takes out of its own map (`memfd_secret(2)`).
#[expect(unsafe_code, reason = "neither the standard library nor rustix has `memfd_secret`")]
fn secret_page() -> io::Result<NonNull<u8>> {
    // SAFETY: a system call without pointers, and its descriptor is nobody else's.
    let file = unsafe {
        let descriptor = libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC);
        let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0);
        OwnedFd::from_raw_fd(descriptor.ok_or_else(io::Error::last_os_error)?)
    };
    rustix::fs::ftruncate(file.as_fd(), PAGE as u64)?;
    let page = map(libc::MAP_SHARED, file.as_raw_fd())?;
    keep_to_this_process(page)?;
    Ok(page)
}

/// An ordinary page that stays in memory.
#[expect(unsafe_code, reason = "the standard library cannot lock memory")]
fn locked_page() -> io::Result<NonNull<u8>> {
    let page = map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    // SAFETY: the range is the mapping made above.
    let locked = unsafe { libc::mlock(page.as_ptr().cast(), PAGE) };
    if locked != 0 {
        return Err(io::Error::last_os_error());
    }
    // Where a child gets nothing of it, it reads zeros. Only private memory can have that.
    advise(page, libc::MADV_WIPEONFORK)?;
    keep_to_this_process(page)?;
    Ok(page)
}

fn keep_to_this_process(page: NonNull<u8>) -> io::Result<()> {
    advise(page, libc::MADV_DONTDUMP)?;
    advise(page, libc::MADV_DONTFORK)
}

#[expect(unsafe_code, reason = "the standard library cannot map memory")]
fn map(flags: libc::c_int, file: libc::c_int) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let page =
        unsafe { libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, file, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(page.cast()).ok_or_else(|| io::Error::other("memory at address 0"))
}

#[expect(unsafe_code, reason = "the standard library cannot advise the kernel")]
fn advise(page: NonNull<u8>, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: the range is a mapping of `PAGE` bytes; none of the advice used here changes what the owner reads.
    let told = unsafe { libc::madvise(page.as_ptr().cast(), PAGE, advice) };
    if told == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes this process one that leaves no core dump and that other processes of the same user can neither trace nor read.
///
/// # Errors
/// The system refuses it.
pub fn keep_to_ourselves() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn a_key_is_where_it_was_put_and_not_shown() {
        let key = GuardedKey::new(&[7; KEY_BYTES]).unwrap();
        assert_eq!(key.get(), &[7; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), "GuardedKey(not shown)");
        let moved = std::thread::spawn(move || *key.get()).join().unwrap();
        assert_eq!(moved, [7; KEY_BYTES]);
    }

    /// Either the kernel cannot read it for anybody, or it is locked and left out of dumps.
    #[test]
    fn the_page_is_out_of_reach() {
        let key = GuardedKey::new(&[9; KEY_BYTES]).unwrap();
        let address = key.page.as_ptr() as u64;
        let memory = fs::File::open("/proc/self/mem").unwrap();
        let read = memory.read_exact_at(&mut [0; KEY_BYTES], address);
        assert_eq!(read.is_err(), key.is_secret(), "{read:?}");
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let of_page = maps.split(&format!("{address:x}-")).nth(1).unwrap();
        let flags = of_page.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        for flag in ["dd", "dc", "lo"] {
            assert!(flags.split_whitespace().any(|is| is == flag), "{flag}: {flags}");
        }
    }

    #[test]
    fn a_page_that_is_only_locked_does_as_well() {
        let page = locked_page().unwrap();
        let key = GuardedKey { page, secret: false };
        assert_eq!(key.get(), &[0; KEY_BYTES]);
    }
}
