//! The four WireGuard messages as they lie on the wire (whitepaper, section 5.4), by type and length only.

/// Bytes of a handshake initiation.
pub const INITIATION_LEN: usize = 148;
/// Bytes of a handshake response.
pub const RESPONSE_LEN: usize = 92;
/// Bytes of a cookie reply.
pub const COOKIE_LEN: usize = 64;
/// Bytes before the sealed part of a data message: type, receiver, counter.
pub const DATA_HEADER_LEN: usize = 16;
/// Bytes that a data message adds to its plaintext: header 16, tag 16.
pub const DATA_OVERHEAD: usize = 32;
/// Counters at and above this are refused: `REJECT_AFTER_MESSAGES`, 2^64 - 2^13 - 1.
pub const COUNTER_LIMIT: u64 = u64::MAX - (1 << 13);

/// What a datagram claims to be. Nothing in it is authenticated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1; `sender` is the index the other side chose.
    Initiation,
    /// Type 2, for our handshake `receiver`.
    Response {
        /// The index we sent in our initiation.
        receiver: u32,
    },
    /// Type 3, for our handshake `receiver`.
    Cookie {
        /// The index we sent in the message that this answers.
        receiver: u32,
    },
    /// Type 4, for our session `receiver`.
    Data {
        /// The index we gave the peer in the handshake.
        receiver: u32,
        /// The message's nonce.
        counter: u64,
    },
}

/// Why a datagram is no WireGuard message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than any message, or an unknown type, or reserved bytes that are not zero.
    #[error("no WireGuard message type")]
    Type,
    /// A known type with a length it cannot have.
    #[error("wrong length for its type")]
    Length,
}

impl Message {
    /// Reads type, length and indices.
    ///
    /// # Errors
    /// Anything but the exact lengths 148, 92 and 64, or at least 32 for data.
    pub fn parse(datagram: &[u8]) -> Result<Self, MessageError> {
        let word = |at: usize| -> Option<u32> {
            let bytes = datagram.get(at..at + 4)?;
            bytes.try_into().ok().map(u32::from_le_bytes)
        };
        let kind = word(0).ok_or(MessageError::Type)?;
        let receiver = |at| word(at).ok_or(MessageError::Length);
        match (kind, datagram.len()) {
            (1, INITIATION_LEN) => Ok(Self::Initiation),
            (2, RESPONSE_LEN) => Ok(Self::Response {
                receiver: receiver(8)?,
            }),
            (3, COOKIE_LEN) => Ok(Self::Cookie {
                receiver: receiver(4)?,
            }),
            (4, DATA_OVERHEAD..) => Ok(Self::Data {
                receiver: receiver(4)?,
                counter: u64::from(receiver(8)?) | u64::from(receiver(12)?) << 32,
            }),
            (1..=4, _) => Err(MessageError::Length),
            _ => Err(MessageError::Type),
        }
    }
}

/// The points of Curve25519 with small order, and their non-canonical twins: a Diffie-Hellman with one of
/// them gives a secret that everybody knows (RFC 7748 section 6.1; list as in libsodium's
/// `has_small_order`). The top bit is ignored by X25519, so it is masked before comparing.
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    low(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    high(0xec),
    high(0xed),
    high(0xee),
];

const fn low(first: u8) -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = first;
    point
}

const fn high(first: u8) -> [u8; 32] {
    let mut point = [0xff; 32];
    point[0] = first;
    point[31] = 0x7f;
    point
}

/// Whether the ephemeral key of a handshake message is a low-order point, which no honest peer sends.
pub fn has_low_order_ephemeral(datagram: &[u8]) -> bool {
    let at = match Message::parse(datagram) {
        Ok(Message::Initiation) => 8,
        Ok(Message::Response { .. }) => 12,
        Ok(Message::Cookie { .. } | Message::Data { .. }) | Err(_) => return false,
    };
    let Some(Ok(mut point)) = datagram.get(at..at + 32).map(<[u8; 32]>::try_from) else {
        return false;
    };
    point[31] &= 0x7f;
    LOW_ORDER.contains(&point)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(kind: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0x11; len];
        let head = kind.to_le_bytes();
        let n = len.min(4);
        bytes[..n].copy_from_slice(&head[..n]);
        bytes
    }

    #[test]
    fn only_exact_lengths_are_messages() {
        for len in 0..400 {
            for kind in 0..8 {
                let parsed = Message::parse(&datagram(kind, len));
                let valid = match kind {
                    1 => len == 148,
                    2 => len == 92,
                    3 => len == 64,
                    4 => len >= 32,
                    _ => false,
                };
                assert_eq!(
                    parsed.is_ok(),
                    valid,
                    "type {kind}, {len} bytes: {parsed:?}"
                );
            }
        }
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        for byte in 1..4 {
            let mut bytes = datagram(4, 64);
            bytes[byte] = 1;
            assert_eq!(Message::parse(&bytes), Err(MessageError::Type));
        }
    }

    #[test]
    fn the_counter_limit_is_the_protocols() {
        assert_eq!(COUNTER_LIMIT, 0xffff_ffff_ffff_dfff);
        assert_eq!(u128::from(COUNTER_LIMIT), (1u128 << 64) - (1 << 13) - 1);
    }

    #[test]
    fn low_order_points_are_known_with_and_without_the_top_bit() {
        for point in LOW_ORDER {
            for top in [0, 0x80] {
                let mut bytes = datagram(1, INITIATION_LEN);
                bytes[8..40].copy_from_slice(&point);
                bytes[39] |= top;
                assert!(has_low_order_ephemeral(&bytes));
            }
        }
        assert!(!has_low_order_ephemeral(&datagram(1, INITIATION_LEN)));
        assert!(!has_low_order_ephemeral(&datagram(4, INITIATION_LEN)));
    }
}
