//! The questions that programs in a cell ask the DNS, and what they are told. Nothing is asked of anybody else.
//!
//! The questions are hostile bytes. Everything is bounded by the length of one packet, nothing is followed, and a name that is not
//! the name of a host is no name.

use std::net::Ipv4Addr;

use super::name::HostName;

/// The longest packet that is read: what a question with all its options comes to.
pub(super) const LONGEST: usize = 1232;

const HEADER: usize = 12;
/// An address.
const A: u16 = 1;
/// The internet.
const IN: u16 = 1;
/// How long an answer holds, in seconds. Addresses stay what they are for as long as the cell lives.
const TTL: u32 = 60;

/// How a question is answered: the last bits of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    No = 0,
    Malformed = 1,
    Failure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// A question that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question<'a> {
    header: [u8; 4],
    /// As it was asked, to be repeated in the answer.
    text: &'a [u8],
    /// The name, if it is the name of a host.
    pub(super) name: Option<HostName>,
    kind: u16,
}

/// What is not answered by asking the rules: this is the answer, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotAsked(pub(super) Option<Vec<u8>>);

impl<'a> Question<'a> {
    /// Reads a packet.
    pub(super) fn read(packet: &'a [u8]) -> Result<Self, NotAsked> {
        let (header, rest) = packet.split_first_chunk::<HEADER>().ok_or(NotAsked(None))?;
        let &[id0, id1, flags0, flags1, ref counts @ ..] = header;
        // What is an answer itself is not answered.
        if packet.len() > LONGEST || flags0 & 0x80 != 0 {
            return Err(NotAsked(None));
        }
        let header = [id0, id1, flags0, flags1];
        let plainly = |code| NotAsked(Some(answer(header, code, &[], &[])));
        if flags0 & 0x78 != 0 {
            return Err(plainly(Code::NotImplemented));
        }
        // One question, and at most what belongs to the whole packet: sizes and a signature.
        let &[0, 1, 0, 0, 0, 0, 0, 0..=2] = counts else {
            return Err(plainly(Code::Malformed));
        };
        let (labels, length) = labels(rest).ok_or_else(|| plainly(Code::Malformed))?;
        let (text, _) = rest.split_at_checked(length + 4).ok_or_else(|| plainly(Code::Malformed))?;
        let &[.., kind0, kind1, class0, class1] = text else {
            return Err(plainly(Code::Malformed));
        };
        if u16::from_be_bytes([class0, class1]) != IN {
            return Err(NotAsked(Some(answer(header, Code::Refused, text, &[]))));
        }
        let name = labels.and_then(|labels| labels.parse().ok());
        Ok(Self { header, text, name, kind: u16::from_be_bytes([kind0, kind1]) })
    }

    /// The name as it was asked for, whatever it is, with dots between its labels.
    pub(super) fn said(&self) -> Vec<u8> {
        let (mut said, mut rest) = (Vec::with_capacity(self.text.len()), self.text);
        while let Some((length, after)) = rest.split_first()
            && *length > 0
            && let Some((label, after)) = after.split_at_checked(usize::from(*length))
        {
            said.extend_from_slice(label);
            said.push(b'.');
            rest = after;
        }
        said
    }

    /// Whether an address is asked for that there is here.
    pub(super) const fn wants_address(&self) -> bool {
        self.kind == A
    }

    /// The answer with an address.
    pub(super) fn address(&self, address: Ipv4Addr) -> Vec<u8> {
        // The name as it is in the question, which begins after the header.
        let mut record = vec![0xc0, HEADER as u8];
        record.extend(A.to_be_bytes());
        record.extend(IN.to_be_bytes());
        record.extend(TTL.to_be_bytes());
        record.extend(4_u16.to_be_bytes());
        record.extend(address.octets());
        answer(self.header, Code::No, self.text, &record)
    }

    /// The answer that there is such a name, and nothing of that kind for it.
    pub(super) fn nothing(&self) -> Vec<u8> {
        answer(self.header, Code::No, self.text, &[])
    }

    /// The answer that there is no such name.
    pub(super) fn no_such_name(&self) -> Vec<u8> {
        answer(self.header, Code::NoSuchName, self.text, &[])
    }

    /// The answer that it cannot be told.
    pub(super) fn failure(&self) -> Vec<u8> {
        answer(self.header, Code::Failure, self.text, &[])
    }
}

/// Reads a name: its labels as text if it could be the name of a host, and how many bytes it takes.
fn labels(bytes: &[u8]) -> Option<(Option<String>, usize)> {
    let (mut text, mut plain, mut at) = (String::new(), true, 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => break,
            // A name that goes on elsewhere has no place in a question.
            64.. => return None,
            1..64 => {}
        }
        let label = bytes.get(at..at + length)?;
        at += length;
        if at > 254 {
            return None;
        }
        // A dot inside a label is not one between two.
        plain &= label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        if plain {
            text.extend(label.iter().copied().map(char::from));
            text.push('.');
        }
    }
    Some((plain.then_some(text), at))
}

fn answer([id0, id1, flags0, _]: [u8; 4], code: Code, question: &[u8], record: &[u8]) -> Vec<u8> {
    let (questions, records) = (u8::from(!question.is_empty()), u8::from(!record.is_empty()));
    // It is an answer; whether more was wanted is repeated, and more is had.
    let flags = [0x80 | (flags0 & 0x79), 0x80 | code as u8];
    let mut packet = vec![id0, id1, flags[0], flags[1], 0, questions, 0, records, 0, 0, 0, 0];
    packet.extend(question);
    packet.extend(record);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question of one kind, as the C library asks it.
    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.as_bytes());
        }
        packet.push(0);
        packet.extend(kind.to_be_bytes());
        packet.extend(IN.to_be_bytes());
        packet
    }

    fn code(packet: &[u8]) -> u8 {
        assert_eq!(packet[2] & 0x80, 0x80, "it is an answer");
        packet[3] & 0x0f
    }

    #[test]
    fn a_question_is_answered() {
        let packet = question("Api.Example.com", A);
        let question = Question::read(&packet).unwrap();
        assert_eq!(question.name.as_ref().unwrap().as_str(), "api.example.com");
        let answer = question.address(Ipv4Addr::new(198, 18, 1, 2));
        assert_eq!(&answer[..12], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(&answer[12..packet.len()], &packet[12..], "the question is repeated as it was written");
        assert_eq!(&answer[packet.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 18, 1, 2]);
        assert_eq!((code(&question.nothing()), code(&question.no_such_name())), (0, 3));
        assert_eq!(question.no_such_name().len(), packet.len());
    }

    #[test]
    fn options_are_not_read() {
        let mut packet = question("a.example", 28);
        packet[11] = 1;
        packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        let question = Question::read(&packet).unwrap();
        assert!(question.name.is_some() && !question.wants_address());
    }

    #[test]
    fn what_is_no_name_of_a_host_is_no_name() {
        for labels in [
            &b"\x05a.b.c\x03com\0"[..],
            b"\x04a\0bc\x03com\0",
            b"\x04_tcp\x03com\0",
            b"\x03127\x011\0",
            b"\0",
        ] {
            let mut packet = question("", A);
            packet.splice(12..13, labels.iter().copied());
            assert_eq!(Question::read(&packet).unwrap().name, None, "{labels:?}");
        }
    }

    #[test]
    fn other_packets_are_turned_away() {
        let good = question("a.example", A);
        let change = |at: usize, byte: u8| {
            let mut packet = good.clone();
            packet[at] = byte;
            packet
        };
        let mut pointer = question("", A);
        pointer.splice(12..13, [0xc0, 12]);
        let many: String = std::iter::repeat_n("a234567890", 25).collect::<Vec<_>>().join(".");
        for (packet, want) in [
            (change(2, 0x28), Some(4)),
            (change(5, 0), Some(1)),
            (change(5, 2), Some(1)),
            (change(7, 1), Some(1)),
            (change(9, 1), Some(1)),
            (change(11, 3), Some(1)),
            (change(good.len() - 1, 3), Some(5)),
            (change(12, 64), Some(1)),
            (good[..good.len() - 1].to_vec(), Some(1)),
            (pointer, Some(1)),
            (question(&many, A), Some(1)),
            (change(2, 0x81), None),
            (good[..11].to_vec(), None),
            ([good.clone(), vec![0; LONGEST]].concat(), None),
            (Vec::new(), None),
        ] {
            let NotAsked(said) = Question::read(&packet).unwrap_err();
            assert_eq!(said.as_deref().map(code), want, "{packet:?}");
        }
    }
}
