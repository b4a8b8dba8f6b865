//! What may follow a hello, where older sites have padding that they do not read: the order in which the sender would
//! take the paths.

use crate::ids::{PATHS_MAX, PathIndex, Ranking};

/// Bytes of an order.
pub const ORDER_LEN: usize = 16;

/// Padding is zero, so this tells an order from it.
const KIND: u8 = 1;
/// Behind the paths.
const RESERVED: usize = 12;

/// The order in which the site that leads would take the paths, for the classes that have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// For which classes, by bit.
    pub classes: u8,
    /// The sender's paths, best first.
    pub paths: Ranking,
}

impl Order {
    /// Reads an order from what is behind a hello. What is none, or one of a kind that is not known, is padding.
    pub fn parse(behind: &[u8]) -> Option<Self> {
        let bytes = behind.first_chunk::<ORDER_LEN>()?;
        let count = usize::from(bytes[3]);
        let is_known = bytes[0] == KIND && usize::from(bytes[1]) == ORDER_LEN;
        if !is_known || count > PATHS_MAX {
            return None;
        }
        let halves = (0..count).map(|at| bytes[4 + at / 2] >> (at % 2 * 4) & 15);
        let order = Self {
            classes: bytes[2],
            paths: Ranking::new(halves.map(PathIndex)),
        };
        // A path twice, or something where nothing should be: nobody who knows the format wrote that.
        let mut again = [0; ORDER_LEN];
        order.write(&mut again);
        (again == *bytes).then_some(order)
    }

    /// Writes the order to the start of `out`, which is right behind the hello.
    ///
    /// # Panics
    /// When `out` is shorter than [`ORDER_LEN`].
    pub fn write(&self, out: &mut [u8]) {
        let Some(out) = out.first_chunk_mut::<ORDER_LEN>() else {
            panic!("no room for an order of {ORDER_LEN} bytes in {}", out.len());
        };
        *out = [0; ORDER_LEN];
        out[..4].copy_from_slice(&[KIND, ORDER_LEN as u8, self.classes, self.paths.len() as u8]);
        for (at, path) in self.paths.iter().enumerate() {
            out[4 + at / 2] |= path.0 << (at % 2 * 4);
        }
        debug_assert!(out[RESERVED..].iter().all(|byte| *byte == 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            classes in any::<u8>(),
            paths in prop::collection::vec(0..16_u8, 0..20),
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let order = Order { classes, paths: Ranking::new(paths.into_iter().map(PathIndex)) };
            let mut bytes = vec![0xff; ORDER_LEN];
            order.write(&mut bytes);
            bytes.extend(behind);
            prop_assert_eq!(Order::parse(&bytes), Some(order));
        }

        #[test]
        fn no_bytes_panic_and_what_is_read_writes_the_same(
            mut bytes in prop::collection::vec(any::<u8>(), 0..24),
            is_like_an_order in any::<bool>(),
        ) {
            if is_like_an_order && bytes.len() >= ORDER_LEN {
                bytes[..2].copy_from_slice(&[KIND, 16]);
                bytes[3] %= 3;
                bytes[5..ORDER_LEN].fill(0);
            }
            if let Some(order) = Order::parse(&bytes) {
                let mut again = [0; ORDER_LEN];
                order.write(&mut again);
                prop_assert_eq!(&again[..], &bytes[..ORDER_LEN]);
            }
        }
    }

    #[test]
    fn the_bytes_of_the_protocol_page() {
        let order = Order {
            classes: 0b0101,
            paths: Ranking::new([0, 3, 15].map(PathIndex)),
        };
        let mut bytes = [0; ORDER_LEN];
        order.write(&mut bytes);
        assert_eq!(
            bytes,
            [1, 16, 5, 3, 0x30, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn padding_and_contradictions_are_no_order() {
        assert_eq!(Order::parse(&[0; 64]), None);
        let mut bytes = [0; ORDER_LEN];
        let paths = Ranking::new([0, 1].map(PathIndex));
        Order { classes: 1, paths }.write(&mut bytes);
        for cut in 0..ORDER_LEN {
            assert_eq!(Order::parse(&bytes[..cut]), None, "{cut} bytes");
        }
        // Another kind, another length, too many paths, a path twice, a path behind the last, something reserved.
        for (at, value) in [
            (0, 2),
            (1, 12),
            (3, 17),
            (4, 0),
            (5, 1),
            (11, 16),
            (12, 1),
            (15, 1),
        ] {
            let mut wrong = bytes;
            wrong[at] = value;
            assert_eq!(Order::parse(&wrong), None, "byte {at} = {value}");
        }
    }
}
