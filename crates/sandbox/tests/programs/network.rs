//! What is tried on the network of a cell that has a way out, and the clients that get through.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use super::{Attempt, call, last};

pub(super) const ATTEMPTS: &super::Attempts = &[
    ("net-ask", ask),
    ("net-cancel", cancel),
    ("net-datagrams", datagrams),
    ("net-flood", flood),
    ("net-garbage", garbage),
    ("net-hello", hello),
    ("net-hold", hold),
    ("net-ping", ping),
    ("net-send", send),
    ("net-sip", sip),
    ("net-talk", talk),
    ("net-tunnel", tunnel),
];

/// How long an answer is waited for where there should be none.
const A_WHILE: Duration = Duration::from_millis(300);

/// `net-talk HOST:PORT TEXT`: says something, and hears what is said back, to the end.
fn talk(arguments: &[&str]) -> Attempt {
    let mut stream = TcpStream::connect(arguments[0]).map_err(|error| error.to_string())?;
    let mut heard = String::new();
    let talked = stream
        .write_all(arguments[1].as_bytes())
        .and_then(|()| stream.shutdown(std::net::Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut heard));
    talked.map_err(|error| error.to_string())?;
    Err(format!("heard {}", heard.trim_end()))
}

/// `net-cancel HOST:PORT COUNT TEXT`: so often connects to twenty at once and waits for none of them; and talks to one after that.
fn cancel(arguments: &[&str]) -> Attempt {
    let address = arguments[0].to_socket_addrs().map_err(|error| error.to_string())?.next().unwrap();
    for _ in 0..arguments[1].parse::<usize>().unwrap() {
        for _ in 0..20 {
            drop(begin_to_connect(address)?);
        }
        std::thread::sleep(A_WHILE);
    }
    talk(&[arguments[0], arguments[2]])
}

/// `net-sip HOST:PORT COUNT TEXT PART`: says a text on so many connections, and parts without end; waits for a line.
fn sip(arguments: &[&str]) -> Attempt {
    let [target, count, text, part] = arguments else { return Err("too little".to_owned()) };
    let sent = [text.as_bytes(), part.repeat(400_000).as_bytes()].concat();
    std::thread::scope(|threads| {
        for _ in 0..count.parse::<usize>().unwrap() {
            threads.spawn(|| TcpStream::connect(target).and_then(|mut stream| stream.write_all(&sent)));
        }
        std::thread::sleep(A_WHILE);
        println!("sipping");
        std::io::stdout().flush().unwrap();
        let _ = std::io::stdin().read_line(&mut String::new());
    });
    Ok("sent".to_owned())
}

/// `net-send HOST:PORT MIB`: sends so much, and hears how many bytes came.
fn send(arguments: &[&str]) -> Attempt {
    let mut stream = TcpStream::connect(arguments[0]).map_err(|error| error.to_string())?;
    let part = vec![7; 1 << 20];
    for _ in 0..arguments[1].parse::<usize>().unwrap() {
        stream.write_all(&part).map_err(|error| error.to_string())?;
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).map_err(|error| error.to_string())?;
    Err(format!("heard {heard}"))
}

/// `net-hold HOST:PORT COUNT`: connects so often, reads nothing, and waits for a line.
fn hold(arguments: &[&str]) -> Attempt {
    let connect = |_| TcpStream::connect(arguments[0]);
    let held: Vec<_> = (0..arguments[1].parse::<usize>().unwrap()).map(connect).collect();
    println!("holding {}", held.iter().filter(|stream| stream.is_ok()).count());
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
    Ok("held".to_owned())
}

/// `net-flood HOST:PORT COUNT`: connects so often at the same time, and says how often it could.
fn flood(arguments: &[&str]) -> Attempt {
    let address = arguments[0].to_socket_addrs().map_err(|error| error.to_string())?.next().unwrap();
    let mut sockets = Vec::new();
    for _ in 0..arguments[1].parse::<usize>().unwrap() {
        sockets.push(begin_to_connect(address)?);
    }
    let mut connected = 0;
    for stream in &sockets {
        let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&raw mut poll, 1, 5000) };
        connected += usize::from(stream.take_error().unwrap().is_none() && stream.peer_addr().is_ok());
    }
    Err(format!("connected {connected}"))
}

/// A socket that is on its way to this address.
fn begin_to_connect(address: std::net::SocketAddr) -> Result<TcpStream, String> {
    // SAFETY: it makes a socket.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0) };
    if socket == -1 {
        return Err(last().to_string());
    }
    // SAFETY: the socket was just made.
    let stream: TcpStream = unsafe { std::os::fd::FromRawFd::from_raw_fd(socket) };
    let std::net::SocketAddr::V4(to) = address else { return Err("no address".to_owned()) };
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: to.ip().to_bits().to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: an address of its size.
    unsafe { libc::connect(socket, (&raw const to).cast(), size_of_val(&to) as u32) };
    Ok(stream)
}

/// `net-datagrams HOST:PORT…`: sends to each and waits for an answer.
fn datagrams(targets: &[&str]) -> Attempt {
    for target in targets {
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(A_WHILE)).unwrap();
        let query = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4, b't', b'e', b's', b't', 0, 0, 1, 0, 1];
        // A size that has to be sent in pieces, and one that has not.
        for packet in [&query[..], &[0; 65_507]] {
            if socket.send_to(packet, target).is_ok() && socket.recv(&mut [0; 512]).is_ok() {
                return Err(format!("{target} answered"));
            }
        }
    }
    Ok("nobody answered".to_owned())
}

/// Echoes, by the one kind of socket that may send them without privilege, where it may.
fn ping(targets: &[&str]) -> Attempt {
    let made = call(libc::SYS_socket, [i64::from(libc::AF_INET), i64::from(libc::SOCK_DGRAM), 1, 0, 0, 0]);
    let Ok(number) = made else { return Ok("no socket for it".to_owned()) };
    // SAFETY: the socket was just made.
    let socket: UdpSocket = unsafe { std::os::fd::FromRawFd::from_raw_fd(i32::try_from(number).unwrap()) };
    socket.set_read_timeout(Some(A_WHILE)).unwrap();
    for target in targets {
        if socket.send_to(&[8, 0, 0, 0, 0, 0, 0, 1], target).is_ok() && socket.recv(&mut [0; 64]).is_ok() {
            return Err(format!("{target} answered"));
        }
    }
    Ok("nobody answered".to_owned())
}

/// `net-ask NAME KIND`: asks the DNS of the cell, and says what it answered: its code and the last four bytes of a record.
fn ask(arguments: &[&str]) -> Attempt {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in arguments[0].split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(arguments[1].parse::<u16>().unwrap().to_be_bytes());
    query.extend([0, 1]);
    let mut answer = [0; 512];
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(&query, "198.18.0.1:53").map_err(|error| error.to_string())?;
    let length = socket.recv(&mut answer).map_err(|error| error.to_string())?;
    match (answer[3] & 0xf, answer[7]) {
        (code, 0) => Ok(format!("code {code}")),
        (code, _) => Err(format!("code {code}, address {:?}", &answer[length - 4..length])),
    }
}

/// Packets to the DNS that are no questions; it has to answer a good one afterwards.
fn garbage(arguments: &[&str]) -> Attempt {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(A_WHILE)).unwrap();
    for length in [0, 1, 11, 12, 13, 511, 512, 1232, 1233, 9000, 65_000] {
        for byte in [0, 1, 0x3f, 0xc0, 0xff] {
            let _ = socket.send_to(&vec![byte; length], "198.18.0.1:53");
        }
    }
    while socket.recv(&mut [0; 65_535]).is_ok() {}
    ask(arguments)
}

/// `net-hello HOST:PORT NAME PIECE [ech]`: begins TLS for a name, in pieces of this size, and hears what comes back.
fn hello(arguments: &[&str]) -> Attempt {
    let [target, rest @ ..] = arguments else { return Err("too little".to_owned()) };
    begin(TcpStream::connect(target).map_err(|error| error.to_string())?, rest)
}

/// `net-tunnel PROXY HOST:PORT NAME PIECE [ech]`: the same, in a tunnel of a proxy.
fn tunnel(arguments: &[&str]) -> Attempt {
    let [proxy, target, rest @ ..] = arguments else { return Err("too little".to_owned()) };
    let mut stream = TcpStream::connect(proxy).map_err(|error| error.to_string())?;
    stream
        .write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes())
        .map_err(|error| error.to_string())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(|error| error.to_string())?;
        head.extend(byte);
    }
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Ok(String::from_utf8_lossy(&head).into_owned());
    }
    begin(stream, rest)
}

fn begin(mut stream: TcpStream, arguments: &[&str]) -> Attempt {
    let [name, piece, rest @ ..] = arguments else { return Err("too little".to_owned()) };
    let long = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let mut extensions = Vec::new();
    if *name != "-" {
        let entry = [&[0][..], &long(name.as_bytes())].concat();
        extensions.extend([0, 0]);
        extensions.extend(long(&long(&entry)));
    }
    if rest == ["ech"] {
        extensions.extend([0xfe, 0x0d, 0, 4, 1, 2, 3, 4]);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(long(&extensions));
    let size = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1, size[1], size[2], size[3]][..], &body].concat();
    let piece = piece.parse::<usize>().unwrap();
    stream.set_nodelay(true).unwrap();
    for part in message.chunks(piece) {
        let record = [&[22, 3, 1][..], &long(part)].concat();
        // Each record in two packets, too.
        for half in [&record[..3], &record[3..]] {
            if let Err(error) = stream.write_all(half) {
                return Ok(error.to_string());
            }
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        Ok(0) => Ok("heard nothing".to_owned()),
        Ok(length) => Err(format!("heard {length} bytes")),
        Err(error) => Ok(error.to_string()),
    }
}
