//! The network interface of a cell: made by its first process, in its own network, while it still may.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, chmodat, makedev, mknodat, openat, stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{CELL, MTU};

/// Where the device is.
const DEVICE: &str = "/dev/net/tun";
const MAJOR: u32 = 10;
const MINOR: u32 = 200;
const NAME: [u8; 16] = *b"tun0\0\0\0\0\0\0\0\0\0\0\0\0";

/// A folder that holds nothing but the device `tun`, which everybody may open, as the host's own is where udev made it. Whoever is
/// still root can make one; it is nowhere in the tree of files, and only who has the descriptor finds it.
pub(crate) fn own_device() -> Option<OwnedFd> {
    let there = stat(DEVICE).ok()?;
    if (FileType::from_raw_mode(there.st_mode), there.st_rdev)
        != (FileType::CharacterDevice, makedev(MAJOR, MINOR))
    {
        return None;
    }
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    fsconfig_set_string(&context, "nr_inodes", "2").ok()?;
    fsconfig_create(&context).ok()?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let folder = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).ok()?;
    let mode = Mode::from_raw_mode(0o666);
    mknodat(&folder, "tun", FileType::CharacterDevice, mode, makedev(MAJOR, MINOR)).ok()?;
    chmodat(&folder, "tun", mode, rustix::fs::AtFlags::empty()).ok()?;
    Some(folder)
}

/// Makes the interface, gives it the cell's address, and sends everything to it that is not for the cell itself. What is written to
/// it comes out of the descriptor.
pub(crate) fn make(own: Option<&OwnedFd>) -> Result<OwnedFd, String> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = match own {
        Some(folder) => openat(folder, "tun", flags, Mode::empty()),
        None => openat(CWD, DEVICE, flags, Mode::empty()),
    };
    let tun = opened.map_err(|error| {
        format!(
            "`{DEVICE}` cannot be opened ({error}); it has to be there, and open to everybody (mode 0666)"
        )
    })?;
    configure(&tun).map_err(|error| error.to_string())?;
    Ok(tun)
}

fn configure(tun: &OwnedFd) -> Result<(), Errno> {
    let packets_only = u16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap_or_default();
    request(tun, libc::TUNSETIFF, &Request::new(&packets_only.to_ne_bytes()))?;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let up = u16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    let ioctl = |number: libc::c_ulong, value: &[u8]| request(&socket, number as _, &Request::new(value));
    ioctl(libc::SIOCSIFMTU, &i32::from(MTU).to_ne_bytes())?;
    ioctl(libc::SIOCSIFADDR, &address(CELL))?;
    ioctl(libc::SIOCSIFNETMASK, &address(Ipv4Addr::BROADCAST))?;
    ioctl(libc::SIOCSIFFLAGS, &up.to_ne_bytes())?;
    default_route(&socket)
}

/// `struct ifreq` of the kernel: a name, and what the request is about.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

impl Request {
    fn new(bytes: &[u8]) -> Self {
        let mut value = [0; 24];
        for (place, byte) in value.iter_mut().zip(bytes) {
            *place = *byte;
        }
        Self { name: NAME, value }
    }
}

/// `struct sockaddr_in` of the kernel.
fn address(address: Ipv4Addr) -> [u8; 16] {
    let [f0, f1] = (libc::AF_INET as u16).to_ne_bytes();
    let [a, b, c, d] = address.octets();
    [f0, f1, 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

#[expect(unsafe_code, reason = "there is no safe way to set up an interface")]
fn request(descriptor: &OwnedFd, number: libc::Ioctl, request: &Request) -> Result<(), Errno> {
    let mut request = Request { name: request.name, value: request.value };
    // SAFETY: the structure is the kernel's `ifreq`, of its size, with a name that ends with zero; the kernel reads and writes it.
    // JUSTIFICATION: interfaces are set up by `ioctl`.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), number, &raw mut request) };
    if result == -1 { Err(failed()) } else { Ok(()) }
}

#[expect(unsafe_code, reason = "there is no safe way to add a route")]
fn default_route(socket: &OwnedFd) -> Result<(), Errno> {
    let mut name = NAME;
    // SAFETY: all zero is a value of this structure of numbers and one pointer.
    // JUSTIFICATION: most of its fields are to be zero, and some have no name.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst.sa_family = libc::AF_INET as _;
    route.rt_genmask.sa_family = libc::AF_INET as _;
    route.rt_flags = libc::RTF_UP as _;
    route.rt_dev = name.as_mut_ptr().cast();
    // SAFETY: the structure is the kernel's, and the name in it ends with zero and outlives the call; both are only read.
    // JUSTIFICATION: as above.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) };
    if result == -1 { Err(failed()) } else { Ok(()) }
}

fn failed() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_device_is_missing_it_is_said() {
        let folder = rustix::fs::open("/proc/self/fdinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let why = make(Some(&folder.unwrap())).unwrap_err();
        assert_eq!(
            why,
            "`/dev/net/tun` cannot be opened (No such file or directory (os error 2)); it has to be there, and open to everybody (mode 0666)"
        );
    }
}
