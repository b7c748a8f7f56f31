//! The beginning of a TLS connection: whose name the client says it wants to talk to.
//!
//! What a program in a cell sends is hostile bytes. Read is what is needed to tell the name, and whatever a server could take for
//! something else is refused: two names, no name, an encrypted second name, lengths that do not add up.

use super::name::HostName;

/// How many bytes of a connection are looked at, and held back until the name is known.
pub(super) const LONGEST: usize = 20 << 10;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beginning {
    /// So many bytes are needed to tell.
    Incomplete(usize),
    /// TLS, for this name.
    Named(HostName),
    /// Not TLS.
    Other,
}

/// Why a TLS connection is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum HelloError {
    /// The name that counts is encrypted.
    #[error("the client hides the name of the server (ECH)")]
    Hidden,
    /// It has no end.
    #[error("the client's first message is too long")]
    Long,
    /// It is not as TLS has it.
    #[error("the client's first message is malformed")]
    Malformed,
    /// It does not say whom it is for, or names an address.
    #[error("the client does not name the server (SNI)")]
    Nameless,
    /// This port is for TLS.
    #[error("the client does not speak TLS")]
    NotTls,
    /// It is for somebody else than was looked up.
    #[error("the client names another server (SNI)")]
    OtherName,
}

const HANDSHAKE: u8 = 22;
/// What other records there are. Some servers pass over one that comes first.
const OTHERS: [u8; 4] = [20, 21, 23, 24];
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
/// Encrypted Client Hello, in its last form and as it was tried out first.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// Reads the first bytes of a connection, as many as there are.
pub(super) fn read(bytes: &[u8]) -> Result<Beginning, HelloError> {
    match bytes {
        [] => return Ok(Beginning::Incomplete(1)),
        [kind] if *kind == HANDSHAKE || OTHERS.contains(kind) => return Ok(Beginning::Incomplete(2)),
        [HANDSHAKE, 3, ..] => {}
        [kind, 3, ..] if OTHERS.contains(kind) => return Err(HelloError::Malformed),
        _ => return Ok(Beginning::Other),
    }
    // The message can be cut into as many records as one likes.
    let (mut message, mut rest) = (Vec::new(), bytes);
    loop {
        let read = bytes.len() - rest.len();
        let Some((&[kind, major, _, high, low], after)) = rest.split_first_chunk::<5>() else {
            return incomplete(read + 5);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || major != 3 || length == 0 || length > 1 << 14 {
            return Err(HelloError::Malformed);
        }
        let Some((part, after)) = after.split_at_checked(length) else {
            return incomplete(read + 5 + length);
        };
        message.extend_from_slice(part);
        rest = after;
        if let Some((&[kind, size @ ..], body)) = message.split_first_chunk::<4>() {
            let [high, middle, low] = size;
            let size = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX);
            if kind != CLIENT_HELLO || body.len() > size {
                return Err(HelloError::Malformed);
            }
            if size > LONGEST {
                return Err(HelloError::Long);
            }
            if body.len() == size {
                return client_hello(body).ok_or(HelloError::Malformed)?.map(Beginning::Named);
            }
        }
    }
}

fn incomplete(needed: usize) -> Result<Beginning, HelloError> {
    if needed > LONGEST { Err(HelloError::Long) } else { Ok(Beginning::Incomplete(needed)) }
}

/// The name in the message; `None` where it is malformed.
fn client_hello(body: &[u8]) -> Option<Result<HostName, HelloError>> {
    let mut body = Fields(body);
    let _version_and_random = body.take(2 + 32)?;
    let _session = body.short().filter(|session| session.len() <= 32)?;
    let _ciphers = body.long().filter(|ciphers| !ciphers.is_empty() && ciphers.len() % 2 == 0)?;
    let _compression = body.short().filter(|methods| !methods.is_empty())?;
    if body.0.is_empty() {
        return Some(Err(HelloError::Nameless));
    }
    let mut extensions = Fields(body.last()?);
    let (mut name, mut hidden) = (None, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let value = extensions.long()?;
        hidden |= ENCRYPTED.contains(&kind);
        if kind == SERVER_NAME && name.replace(server_name(value)?).is_some() {
            return None;
        }
    }
    if hidden {
        return Some(Err(HelloError::Hidden));
    }
    Some(name.flatten().ok_or(HelloError::Nameless))
}

/// The one name in the extension; `None` inside where it is not the name of a host.
fn server_name(value: &[u8]) -> Option<Option<HostName>> {
    let mut list = Fields(Fields(value).last()?);
    let kind = list.take(1)?;
    let name = list.last()?;
    if kind != [0] {
        return None;
    }
    let name = std::str::from_utf8(name).ok().filter(|name| !name.ends_with('.'));
    Some(name.and_then(|name| name.parse().ok()))
}

/// Bytes that are read from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// Bytes after their length in one byte.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(usize::from(length))
    }

    /// Bytes after their length in two bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    /// The same, with nothing after them.
    fn last(&mut self) -> Option<&'a [u8]> {
        self.long().filter(|_| self.0.is_empty())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &long(value)].concat()
    }

    fn server_name_of(name: &str) -> Vec<u8> {
        extension(0, &long(&[&[0][..], &long(name.as_bytes())].concat()))
    }

    /// A client's first message with these extensions.
    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(long(&extensions.concat()));
        let size = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1, size[1], size[2], size[3]][..], &body].concat()
    }

    /// It in records of this size.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &long(part)].concat()).collect()
    }

    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        records(&message(extensions), 1 << 14)
    }

    /// What a client begins with for a name.
    pub(in super::super) fn hello_for(name: &str) -> Vec<u8> {
        hello(&[server_name_of(name)])
    }

    fn named(name: &str) -> Beginning {
        Beginning::Named(name.parse().unwrap())
    }

    #[test]
    fn the_name_is_found() {
        let others =
            [extension(43, &[2, 3, 4]), server_name_of("Api.Example.com"), extension(51, &[0; 1500])];
        assert_eq!(read(&hello(&others)), Ok(named("api.example.com")));
        let with_more = [hello(&others), vec![20, 3, 3, 0, 1, 1]].concat();
        assert_eq!(read(&with_more), Ok(named("api.example.com")));
    }

    #[test]
    fn what_is_not_tls_is_told_apart() {
        for (bytes, want) in [
            (&b""[..], Beginning::Incomplete(1)),
            (b"\x16", Beginning::Incomplete(2)),
            (b"\x16\x03", Beginning::Incomplete(5)),
            (b"GET / HTTP/1.1", Beginning::Other),
            (b"\x15", Beginning::Incomplete(2)),
            (b"\x15\x02", Beginning::Other),
            (b"\x16\x02", Beginning::Other),
            (b"\x80\x2e\x01\x03\x01", Beginning::Other),
        ] {
            assert_eq!(read(bytes), Ok(want), "{bytes:?}");
        }
    }

    #[test]
    fn what_hides_or_lacks_the_name_is_refused() {
        use HelloError::{Hidden, Long, Malformed, Nameless};
        let name = server_name_of("a.example");
        let two = extension(0, &long(&[&[0][..], &long(b"a.example"), &[0], &long(b"b.example")].concat()));
        let mut short = hello(std::slice::from_ref(&name));
        short[8] -= 1;
        for (bytes, want) in [
            (hello(&[]), Nameless),
            (hello(&[extension(43, &[2, 3, 4])]), Nameless),
            (hello(&[server_name_of("127.0.0.1")]), Nameless),
            (hello(&[server_name_of("a.example.")]), Nameless),
            (hello(&[server_name_of("a.example\0.b.example")]), Nameless),
            (hello(&[server_name_of("")]), Nameless),
            (hello(&[name.clone(), extension(0xfe0d, &[0; 100])]), Hidden),
            (hello(&[extension(0xffce, &[]), name.clone()]), Hidden),
            (hello(&[name.clone(), name.clone()]), Malformed),
            (hello(&[two]), Malformed),
            (hello(&[extension(0, &[])]), Malformed),
            (short, Malformed),
            (vec![22, 3, 1, 0, 0], Malformed),
            (vec![20, 3], Malformed),
            ([&[21, 3, 1, 0, 2, 1, 90][..], &hello(std::slice::from_ref(&name))].concat(), Malformed),
            (vec![22, 3, 1, 0xff, 0xff], Malformed),
            (vec![22, 3, 1, 0, 4, 2, 0, 0, 0], Malformed),
            (vec![22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], Long),
            ([&records(&message(&[name]), 10)[..15], &[23, 3, 3, 0, 1, 0]].concat(), Malformed),
        ] {
            assert_eq!(read(&bytes), Err(want), "{bytes:?}");
        }
    }

    #[test]
    fn it_has_an_end() {
        let endless = records(&message(&[extension(21, &[0; 19_000])]), 1);
        assert_eq!(read(&endless[..LONGEST]), Err(HelloError::Long));
    }

    proptest! {
        /// In whatever records and pieces it comes: no piece is taken for the whole, and the whole says the same.
        #[test]
        fn pieces_do_not_matter(size in 1_usize..200, cut in 0_usize..2000) {
            let bytes = records(&message(&[server_name_of("a.example")]), size);
            prop_assert_eq!(read(&bytes), Ok(named("a.example")));
            if let Some(piece) = bytes.get(..cut.min(bytes.len() - 1)) {
                let more = match read(piece) {
                    Ok(Beginning::Incomplete(needed)) => needed,
                    other => panic!("{other:?}"),
                };
                prop_assert!(more > piece.len() && more <= bytes.len());
            }
        }

        #[test]
        fn anything_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..80, byte: u8) {
            let _ = read(&bytes);
            let mut changed = hello(&[server_name_of("a.example")]);
            if let Some(place) = changed.get_mut(at) {
                *place = byte;
            }
            let _ = read(&changed);
        }
    }
}
