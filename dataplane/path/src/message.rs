//! The hello: the message that measures a path and keeps it alive, modelled on STAMP (RFC 8762) and BFD (RFC 5880).
//!
//! It is the plaintext of a WireGuard data message on the path that it measures; its first nibble is neither 4 nor 6, so
//! a stock peer drops it as no IP packet. The layout is in `docs/protocol/hello.md`.

mod order;

use crate::metrics::{PathState, StateReason};

pub use order::{ORDER_LEN, Order};

/// Bytes of a hello without padding.
pub const HELLO_LEN: usize = 96;

const MAGIC: [u8; 4] = [0x00, b'P', b'a', b't'];
const VERSION: u8 = 1;
/// Kinds below are those of the control messages of lanes, which have the same magic.
const KIND_FIRST: u8 = 16;
const KINDS: [Kind; 5] = [
    Kind::Hello,
    Kind::Train,
    Kind::MtuProbe,
    Kind::MtuReply,
    Kind::Lane,
];
const STATES: [PathState; 5] = [
    PathState::AdminDown,
    PathState::Down,
    PathState::Init,
    PathState::Up,
    PathState::Suspect,
];
const REASONS: [StateReason; 11] = [
    StateReason::New,
    StateReason::Heard,
    StateReason::HellosMissed,
    StateReason::DetectionExpired,
    StateReason::PeerDoesNotHear,
    StateReason::PeerSignalled,
    StateReason::CarrierLost,
    StateReason::UplinkDown,
    StateReason::Unreachable,
    StateReason::Drained,
    StateReason::Removed,
];
const FLAG_HEARS_YOU: u8 = 1;
const FLAG_SUSPECT: u8 = 2;
const FLAG_DRAINING: u8 = 4;
const FLAG_METERED: u8 = 8;
const FLAG_WANTS_ANSWER: u8 = 16;
const FLAGS: u8 = 31;

/// What a hello is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Measures and keeps alive.
    #[default]
    Hello,
    /// One of a train that measures bandwidth.
    Train,
    /// Padded to the size that is tried; answered at once.
    MtuProbe,
    /// "That size came": echoes the length of an MTU probe.
    MtuReply,
    /// A lane tells the other end its address on this path; measures nothing.
    Lane,
}

/// One hello, read or to be written. Times are the sender's monotonic nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hello {
    /// What it is for.
    pub kind: Kind,
    /// The sender hears the receiver on this path.
    pub hears_you: bool,
    /// The sender suspects the path.
    pub is_suspect: bool,
    /// The sender drains the path.
    pub is_draining: bool,
    /// Bytes cost money at the sender's end.
    pub is_metered: bool,
    /// The sender wants a hello back at once.
    pub wants_answer: bool,
    /// The sender's state of the path.
    pub state: PathState,
    /// Why.
    pub reason: StateReason,
    /// The upper half names the run of the sender, the lower half counts its paths: with another one all numbers of the
    /// path begin anew.
    pub instance: u32,
    /// The sender's number of the path, plus one.
    pub path: u16,
    /// The receiver's number of the path, plus one; zero until learnt.
    pub your_path: u16,
    /// Counts the sender's messages of kind [`Kind::Hello`] on this path, from one; in other kinds the last of those.
    pub sequence: u32,
    /// Interval at which the sender wants both sides to send, in milliseconds.
    pub desired_interval_ms: u16,
    /// Least interval at which the sender can receive, in milliseconds.
    pub required_interval_ms: u16,
    /// Longest pause until the sender's next hello, in milliseconds.
    pub interval_ms: u16,
    /// How many missing hellos mean Down; at least one.
    pub multiplier: u8,
    /// Of which classes (by bit) the sender sends packets on this path.
    pub classes: u8,
    /// Of the receiver's paths, by bit, those that the sender knows to be broken at its end.
    pub faults: u16,
    /// When it was sent, t1.
    pub sent_at_ns: u64,
    /// Of the last hello heard from the receiver: its sequence, zero before the first,
    pub echo_sequence: u32,
    /// when the receiver sent it,
    pub echo_sent_at_ns: u64,
    /// and how long it lay here, in microseconds.
    pub echo_hold_us: u32,
    /// Interarrival jitter of the receiver's hellos as the sender sees it, in microseconds.
    pub jitter_us: u32,
    /// The last step of that jitter, |D|, in microseconds.
    pub deviation_us: u32,
    /// Hellos of the receiver that came, cumulative.
    pub hellos_received: u32,
    /// Data packets that the sender sent on this path, low 32 bits.
    pub data_tx_packets: u32,
    /// Data packets that the sender had received on this path when the echoed hello came, low 32 bits.
    pub data_rx_packets: u32,
    /// Bytes of outer IP with them.
    pub data_rx_bytes: u64,
    /// Rate of the last train that came, in kilobit per second; zero before the first.
    pub train_kbps: u32,
    /// For MTU messages: length of the plaintext that is tried or came. For trains: number, length and place. For hellos:
    /// the number of the last train that came.
    pub argument: u32,
}

/// Why bytes are no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Not ours: no magic.
    #[error("no Patronus message")]
    Magic,
    /// From a version that this one does not know.
    #[error("hello of an unknown version or kind")]
    Unknown,
    /// Cut off, or with a field that makes no sense.
    #[error("malformed hello")]
    Malformed,
}

impl Hello {
    /// Whether the plaintext claims to be a hello.
    #[inline]
    pub fn is_hello(plaintext: &[u8]) -> bool {
        plaintext.starts_with(&MAGIC) && plaintext.get(5).is_some_and(|kind| *kind >= KIND_FIRST)
    }

    /// Reads a hello; bytes behind its length are padding.
    ///
    /// # Errors
    /// Everything that is not exactly a hello of this version.
    pub fn parse(plaintext: &[u8]) -> Result<Self, HelloError> {
        if !Self::is_hello(plaintext) {
            return Err(HelloError::Magic);
        }
        let kind = KINDS.get(usize::from(plaintext[5] - KIND_FIRST));
        let (VERSION, Some(&kind)) = (plaintext[4], kind) else {
            return Err(HelloError::Unknown);
        };
        let Some(fixed) = plaintext.first_chunk::<HELLO_LEN>() else {
            return Err(HelloError::Malformed);
        };
        let len = usize::from(u16::from_le_bytes(bytes(fixed, 6)));
        let flags = fixed[8];
        let is_reserved_zero = flags & !FLAGS == 0 && fixed[93..] == [0; 3];
        let (state, reason) = (
            STATES.get(usize::from(fixed[9])),
            REASONS.get(usize::from(fixed[10])),
        );
        let (Some(&state), Some(&reason)) = (state, reason) else {
            return Err(HelloError::Malformed);
        };
        let multiplier = fixed[11];
        if len != HELLO_LEN || !is_reserved_zero || multiplier == 0 {
            return Err(HelloError::Malformed);
        }
        Ok(Self {
            kind,
            hears_you: flags & FLAG_HEARS_YOU != 0,
            is_suspect: flags & FLAG_SUSPECT != 0,
            is_draining: flags & FLAG_DRAINING != 0,
            is_metered: flags & FLAG_METERED != 0,
            wants_answer: flags & FLAG_WANTS_ANSWER != 0,
            state,
            reason,
            multiplier,
            path: u16::from_le_bytes(bytes(fixed, 12)),
            your_path: u16::from_le_bytes(bytes(fixed, 14)),
            instance: u32::from_le_bytes(bytes(fixed, 16)),
            sequence: u32::from_le_bytes(bytes(fixed, 20)),
            desired_interval_ms: u16::from_le_bytes(bytes(fixed, 24)),
            required_interval_ms: u16::from_le_bytes(bytes(fixed, 26)),
            interval_ms: u16::from_le_bytes(bytes(fixed, 28)),
            faults: u16::from_le_bytes(bytes(fixed, 30)),
            sent_at_ns: u64::from_le_bytes(bytes(fixed, 32)),
            echo_sent_at_ns: u64::from_le_bytes(bytes(fixed, 40)),
            echo_sequence: u32::from_le_bytes(bytes(fixed, 48)),
            echo_hold_us: u32::from_le_bytes(bytes(fixed, 52)),
            jitter_us: u32::from_le_bytes(bytes(fixed, 56)),
            deviation_us: u32::from_le_bytes(bytes(fixed, 60)),
            hellos_received: u32::from_le_bytes(bytes(fixed, 64)),
            data_tx_packets: u32::from_le_bytes(bytes(fixed, 68)),
            data_rx_packets: u32::from_le_bytes(bytes(fixed, 72)),
            argument: u32::from_le_bytes(bytes(fixed, 76)),
            data_rx_bytes: u64::from_le_bytes(bytes(fixed, 80)),
            train_kbps: u32::from_le_bytes(bytes(fixed, 88)),
            classes: fixed[92],
        })
    }

    /// Writes the hello to the start of `out` and returns its length, [`HELLO_LEN`]; what is behind is padding, to be
    /// zeroed by the caller.
    ///
    /// # Panics
    /// When `out` is shorter than [`HELLO_LEN`].
    pub fn write(&self, out: &mut [u8]) -> usize {
        let Some(out) = out.first_chunk_mut::<HELLO_LEN>() else {
            panic!("no room for a hello of {HELLO_LEN} bytes in {}", out.len());
        };
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&[VERSION, KIND_FIRST + place(&KINDS, &self.kind)]);
        out[6..8].copy_from_slice(&(HELLO_LEN as u16).to_le_bytes());
        out[8] = self.flags();
        out[9] = place(&STATES, &self.state);
        out[10] = place(&REASONS, &self.reason);
        out[11] = self.multiplier.max(1);
        out[12..14].copy_from_slice(&self.path.to_le_bytes());
        out[14..16].copy_from_slice(&self.your_path.to_le_bytes());
        out[16..20].copy_from_slice(&self.instance.to_le_bytes());
        out[20..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..26].copy_from_slice(&self.desired_interval_ms.to_le_bytes());
        out[26..28].copy_from_slice(&self.required_interval_ms.to_le_bytes());
        out[28..30].copy_from_slice(&self.interval_ms.to_le_bytes());
        out[30..32].copy_from_slice(&self.faults.to_le_bytes());
        out[32..40].copy_from_slice(&self.sent_at_ns.to_le_bytes());
        out[40..48].copy_from_slice(&self.echo_sent_at_ns.to_le_bytes());
        out[48..52].copy_from_slice(&self.echo_sequence.to_le_bytes());
        out[52..56].copy_from_slice(&self.echo_hold_us.to_le_bytes());
        out[56..60].copy_from_slice(&self.jitter_us.to_le_bytes());
        out[60..64].copy_from_slice(&self.deviation_us.to_le_bytes());
        out[64..68].copy_from_slice(&self.hellos_received.to_le_bytes());
        out[68..72].copy_from_slice(&self.data_tx_packets.to_le_bytes());
        out[72..76].copy_from_slice(&self.data_rx_packets.to_le_bytes());
        out[76..80].copy_from_slice(&self.argument.to_le_bytes());
        out[80..88].copy_from_slice(&self.data_rx_bytes.to_le_bytes());
        out[88..92].copy_from_slice(&self.train_kbps.to_le_bytes());
        out[92..].copy_from_slice(&[self.classes, 0, 0, 0]);
        HELLO_LEN
    }

    fn flags(&self) -> u8 {
        let flags = [
            (self.hears_you, FLAG_HEARS_YOU),
            (self.is_suspect, FLAG_SUSPECT),
            (self.is_draining, FLAG_DRAINING),
            (self.is_metered, FLAG_METERED),
            (self.wants_answer, FLAG_WANTS_ANSWER),
        ];
        flags
            .iter()
            .fold(0, |all, (is_set, flag)| all | (u8::from(*is_set) * flag))
    }
}

fn bytes<const N: usize>(hello: &[u8; HELLO_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&hello[at..at + N]);
    out
}

/// The code of a value on the wire: its place in the table.
fn place<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table
        .iter()
        .position(|known| known == value)
        .map_or(0, |at| at as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn numbers()(
            words in prop::collection::vec(any::<u32>(), 9),
            halves in prop::collection::vec(any::<u16>(), 6),
            longs in prop::collection::vec(any::<u64>(), 3),
            multiplier in 1..=u8::MAX,
            classes in any::<u8>(),
        ) -> Hello {
            Hello {
                instance: words[0],
                sequence: words[1],
                echo_sequence: words[2],
                echo_hold_us: words[3],
                jitter_us: words[4],
                deviation_us: words[5],
                hellos_received: words[6],
                data_tx_packets: words[7],
                data_rx_packets: words[8],
                argument: words[0] ^ words[8],
                train_kbps: words[1] ^ words[7],
                path: halves[0],
                your_path: halves[1],
                desired_interval_ms: halves[2],
                required_interval_ms: halves[3],
                interval_ms: halves[4],
                faults: halves[5],
                sent_at_ns: longs[0],
                echo_sent_at_ns: longs[1],
                data_rx_bytes: longs[2],
                multiplier,
                classes,
                ..Hello::default()
            }
        }
    }

    prop_compose! {
        fn hello()(
            numbers in numbers(),
            flags in any::<[bool; 5]>(),
            kind in prop::sample::select(&KINDS[..]),
            state in prop::sample::select(&STATES[..]),
            reason in prop::sample::select(&REASONS[..]),
        ) -> Hello {
            Hello {
                kind,
                state,
                reason,
                hears_you: flags[0],
                is_suspect: flags[1],
                is_draining: flags[2],
                is_metered: flags[3],
                wants_answer: flags[4],
                ..numbers
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(hello in hello(), padding in 0_usize..1500) {
            let mut bytes = vec![0; HELLO_LEN + padding];
            prop_assert_eq!(hello.write(&mut bytes), HELLO_LEN);
            prop_assert!(Hello::is_hello(&bytes));
            prop_assert_eq!(Hello::parse(&bytes), Ok(hello));
        }

        #[test]
        fn no_bytes_panic_and_what_is_read_writes_the_same(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            is_like_a_hello in any::<bool>(),
        ) {
            if is_like_a_hello && bytes.len() >= HELLO_LEN {
                bytes[..8].copy_from_slice(&[0, b'P', b'a', b't', 1, 16, 96, 0]);
                bytes[8] &= FLAGS;
                bytes[9] %= 5;
                bytes[10] %= 11;
                bytes[93..HELLO_LEN].fill(0);
            }
            if let Ok(hello) = Hello::parse(&bytes) {
                let mut again = [0; HELLO_LEN];
                hello.write(&mut again);
                prop_assert_eq!(&again[..], &bytes[..HELLO_LEN]);
            }
        }
    }

    #[test]
    fn every_truncation_and_every_contradiction_is_refused() {
        let mut bytes = [0; HELLO_LEN];
        let hello = Hello {
            multiplier: 5,
            ..Hello::default()
        };
        hello.write(&mut bytes);
        for cut in 0..HELLO_LEN {
            assert!(Hello::parse(&bytes[..cut]).is_err(), "{cut} bytes");
        }
        for (at, value, error) in [
            (0, 0x45, HelloError::Magic),
            (4, 2, HelloError::Unknown),
            (5, 2, HelloError::Magic),
            (5, 21, HelloError::Unknown),
            (5, 255, HelloError::Unknown),
            (6, 95, HelloError::Malformed),
            (7, 1, HelloError::Malformed),
            (8, 32, HelloError::Malformed),
            (9, 5, HelloError::Malformed),
            (10, 11, HelloError::Malformed),
            (11, 0, HelloError::Malformed),
            (95, 1, HelloError::Malformed),
        ] {
            let mut wrong = bytes;
            wrong[at] = value;
            assert_eq!(Hello::parse(&wrong), Err(error), "byte {at} = {value}");
        }
    }

    #[test]
    fn kinds_of_lanes_are_no_hellos() {
        for kind in 0..KIND_FIRST {
            assert!(!Hello::is_hello(&[0, b'P', b'a', b't', 1, kind]));
        }
    }
}
