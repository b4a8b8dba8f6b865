//! WireGuard keys as announcements carry them.

use std::fmt;

use crate::time::WallTime;
use crate::wire::{Fault, Malformed, Put, Reader};

/// Bytes of an X25519 public key (RFC 7748).
pub const WIREGUARD_KEY_LEN: usize = 32;

/// An X25519 public key that gives a shared secret: canonical, and not of a small order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WireGuardKey([u8; WIREGUARD_KEY_LEN]);

impl WireGuardKey {
    /// Checks the bytes. `None` for a point of small order (zero too), where every shared secret would be zero (RFC
    /// 7748, section 6.1), and for an encoding that is not canonical, which would be a second name for the same key.
    pub fn new(bytes: [u8; WIREGUARD_KEY_LEN]) -> Option<Self> {
        let is_canonical = bytes[31] < 0x7f
            || bytes[31] == 0x7f
                && (bytes[1..31].iter().any(|byte| *byte != 0xff) || bytes[0] < 0xed);
        (is_canonical && !SMALL_ORDER.contains(&bytes)).then_some(Self(bytes))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; WIREGUARD_KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for WireGuardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireGuardKey({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// A site's WireGuard keys: the one in use, and the one to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireGuardKeys {
    current: WireGuardKey,
    next: Option<(WireGuardKey, WallTime)>,
}

impl WireGuardKeys {
    /// The key in use, and perhaps the next one with the time from which it is used. `None` where both are the same, or
    /// the time is zero.
    pub fn new(current: WireGuardKey, next: Option<(WireGuardKey, WallTime)>) -> Option<Self> {
        let is_sound = next.is_none_or(|(key, from)| key != current && from > WallTime(0));
        is_sound.then_some(Self { current, next })
    }

    /// The key in use.
    pub fn current(&self) -> WireGuardKey {
        self.current
    }

    /// The key to come, and when.
    pub fn next(&self) -> Option<(WireGuardKey, WallTime)> {
        self.next
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put(self.current.as_bytes());
        match self.next {
            Some((key, from)) => {
                out.put(key.as_bytes());
                out.put_u64(from.0);
            }
            None => {
                out.put(&[0; WIREGUARD_KEY_LEN]);
                out.put_u64(0);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let current = WireGuardKey::new(reader.array("WireGuard key")?)
            .ok_or(Fault::Key.at("WireGuard key"))?;
        let bytes: [u8; WIREGUARD_KEY_LEN] = reader.array("next WireGuard key")?;
        let from = reader.u64("next key's time")?;
        if bytes == [0; WIREGUARD_KEY_LEN] && from == 0 {
            return Ok(Self {
                current,
                next: None,
            });
        }
        let next = WireGuardKey::new(bytes).ok_or(Fault::Key.at("next WireGuard key"))?;
        Self::new(current, Some((next, WallTime(from))))
            .ok_or(Fault::Contradiction.at("next WireGuard key"))
    }
}

/// The u-coordinates of small order, canonical: 0, 1, the two of order 8, and p − 1 (<https://cr.yp.to/ecdh.html>).
const SMALL_ORDER: [[u8; WIREGUARD_KEY_LEN]; 5] = [
    [0; WIREGUARD_KEY_LEN],
    [
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0,
    ],
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
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x7f,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_give_no_secret_are_refused() {
        for bytes in SMALL_ORDER {
            let point = x25519_dalek::PublicKey::from(bytes);
            let shared = x25519_dalek::StaticSecret::from([7; 32]).diffie_hellman(&point);
            assert!(!shared.was_contributory(), "{bytes:02x?} is of small order");
            assert_eq!(WireGuardKey::new(bytes), None);
        }
    }

    #[test]
    fn second_names_of_a_key_are_refused() {
        let key = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from([7; 32]));
        assert!(WireGuardKey::new(key.to_bytes()).is_some());
        let mut with_high_bit = key.to_bytes();
        with_high_bit[31] |= 0x80;
        assert_eq!(WireGuardKey::new(with_high_bit), None);
        // p + 9 is the base point by another name.
        let mut above_p = [0xff; 32];
        (above_p[0], above_p[31]) = (0xed + 9, 0x7f);
        assert_eq!(WireGuardKey::new(above_p), None);
        // p - 2 is canonical and of large order.
        (above_p[0], above_p[31]) = (0xeb, 0x7f);
        assert!(WireGuardKey::new(above_p).is_some());
    }
}
