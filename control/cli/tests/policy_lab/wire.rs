//! What a request looks like on the wire where the kernel does not see to it: a plain number over UDP, and for
//! kernels without SCTP the two chunks that begin an association (RFC 9260, section 3.3), sent by raw sockets.

/// The form of a request, and of the answer to it.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// The number alone.
    Plain,
    /// The number as the initiate tag of an SCTP INIT or INIT ACK.
    Init {
        /// Whether the socket hands over the IP header as well, as raw ones do for IPv4.
        has_ip_header: bool,
    },
}

impl Form {
    pub fn request(self, number: u32, port: u16) -> Vec<u8> {
        match self {
            Self::Plain => number.to_be_bytes().to_vec(),
            Self::Init { .. } => chunk(own_port(number), port, INIT, number),
        }
    }

    /// The number of a request that came to `port`.
    pub fn read_request(self, bytes: &[u8], port: u16) -> Option<u32> {
        match self {
            Self::Plain => plain(bytes),
            Self::Init { has_ip_header } => read_chunk(bytes, has_ip_header, port, INIT),
        }
    }

    pub fn answer(self, number: u32, port: u16) -> Vec<u8> {
        match self {
            Self::Plain => number.to_be_bytes().to_vec(),
            Self::Init { .. } => chunk(port, own_port(number), INIT_ACK, number),
        }
    }

    /// Whether this answers the request.
    pub fn is_answer(self, bytes: &[u8], number: u32) -> bool {
        let found = match self {
            Self::Plain => plain(bytes),
            Self::Init { has_ip_header } => {
                read_chunk(bytes, has_ip_header, own_port(number), INIT_ACK)
            }
        };
        found == Some(number)
    }
}

fn plain(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

/// A port of its own for every request of a round.
fn own_port(number: u32) -> u16 {
    20_000 + (number & 0x0fff) as u16
}

/// A common header and one chunk; nobody on the way looks at the checksum.
fn chunk(from: u16, to: u16, kind: u8, number: u32) -> Vec<u8> {
    let verification_tag = if kind == INIT { 0 } else { number };
    let mut bytes = Vec::with_capacity(CHUNK_END);
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(verification_tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([kind, 0, 0, 20]);
    bytes.extend(number.to_be_bytes());
    bytes.extend(65_536_u32.to_be_bytes());
    bytes.extend([0, 1, 0, 1]);
    bytes.extend(number.to_be_bytes());
    bytes
}

fn read_chunk(bytes: &[u8], has_ip_header: bool, port: u16, kind: u8) -> Option<u32> {
    let header_len = match has_ip_header {
        true => usize::from(bytes.first()? & 0x0f) * 4,
        false => 0,
    };
    let bytes = bytes.get(header_len..)?;
    let is_it = bytes.len() == CHUNK_END && bytes[2..4] == port.to_be_bytes() && bytes[12] == kind;
    is_it.then(|| u32::from_be_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]))
}

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const CHUNK_END: usize = 32;
