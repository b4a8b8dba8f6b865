//! Reading and writing fixed layouts. Numbers are little endian, as in the other protocols of this repository.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use patronus_packet::Prefix;

/// Bytes that are not the one encoding of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct Malformed {
    /// Which field is wrong.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes end before the field does.
    #[error("cut off")]
    CutOff,
    /// Bytes lie behind the end.
    #[error("more bytes than belong there")]
    Trailing,
    /// More than the stated limit.
    #[error("more than its limit")]
    TooMany,
    /// A version, kind or code that this version does not know.
    #[error("unknown to this version")]
    Unknown,
    /// A list that is not in strictly ascending order: it would have more than one encoding.
    #[error("not in strictly ascending order")]
    Order,
    /// Reserved bits or padding that are not zero.
    #[error("reserved or padding bytes that are not zero")]
    NotZero,
    /// Text with characters that do not belong there, or of a wrong length.
    #[error("text that is no name or label")]
    Text,
    /// A key that nobody can have: of small order, or not in its canonical encoding.
    #[error("weak or non-canonical key")]
    Key,
    /// An address that no host can have, or not in its canonical encoding.
    #[error("address that no host can have")]
    Address,
    /// A prefix with host bits, or longer than its address.
    #[error("prefix with host bits or too long")]
    Prefix,
    /// A number that contradicts another field.
    #[error("contradicts another field")]
    Contradiction,
}

impl Fault {
    pub(crate) fn at(self, field: &'static str) -> Malformed {
        Malformed { field, fault: self }
    }
}

/// Takes fields from the front of some bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(Fault::CutOff.at(field));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(Fault::CutOff.at(field));
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(field)?[0])
    }

    pub fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A count that has a limit.
    pub fn count(&mut self, limit: usize, field: &'static str) -> Result<usize, Malformed> {
        let count = usize::from(self.u8(field)?);
        if count > limit {
            return Err(Fault::TooMany.at(field));
        }
        Ok(count)
    }

    /// Text behind its length in one byte.
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, Malformed> {
        let len = usize::from(self.u8(field)?);
        let bytes = self.take(len, field)?;
        std::str::from_utf8(bytes).map_err(|_| Fault::Text.at(field))
    }

    /// A family, 4 or 6, and the address.
    pub fn address(&mut self, field: &'static str) -> Result<IpAddr, Malformed> {
        match self.u8(field)? {
            4 => Ok(Ipv4Addr::from(self.array::<4>(field)?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>(field)?).into()),
            _ => Err(Fault::Unknown.at(field)),
        }
    }

    /// A prefix length, a family, and the address without host bits.
    pub fn prefix(&mut self, field: &'static str) -> Result<Prefix, Malformed> {
        let len = self.u8(field)?;
        let addr = self.address(field)?;
        let prefix = Prefix::new(addr, len).ok_or(Fault::Prefix.at(field))?;
        if prefix.network() != prefix {
            return Err(Fault::Prefix.at(field));
        }
        Ok(prefix)
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub fn finish(self, field: &'static str) -> Result<(), Malformed> {
        if !self.rest.is_empty() {
            return Err(Fault::Trailing.at(field));
        }
        Ok(())
    }

    /// Nothing but zeros may be left.
    pub fn finish_padded(self, field: &'static str) -> Result<(), Malformed> {
        if self.rest.iter().any(|byte| *byte != 0) {
            return Err(Fault::NotZero.at(field));
        }
        Ok(())
    }
}

/// Puts fields behind each other.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// A count that a checked type keeps below 256.
    fn put_count(&mut self, count: usize) {
        debug_assert!(count <= usize::from(u8::MAX), "{count} in one byte");
        self.put_u8(count as u8);
    }

    /// Text that a checked type keeps below 256 bytes.
    fn put_text(&mut self, text: &str) {
        self.put_count(text.len());
        self.put(text.as_bytes());
    }

    fn put_address(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(v4) => {
                self.put_u8(4);
                self.put(&v4.octets());
            }
            IpAddr::V6(v6) => {
                self.put_u8(6);
                self.put(&v6.octets());
            }
        }
    }

    fn put_prefix(&mut self, prefix: Prefix) {
        self.put_u8(prefix.prefix_len());
        self.put_address(prefix.addr());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Whether every item is larger than the one before it.
pub(crate) fn is_ascending<T: PartialOrd>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair[0] < pair[1])
}

/// The 16 bytes of an address where its family has no byte of its own: IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
pub(crate) fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address of 16 bytes that [`mapped`] wrote.
pub(crate) fn unmapped(bytes: [u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(bytes);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}
