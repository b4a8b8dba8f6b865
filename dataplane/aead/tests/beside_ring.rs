//! Our backend beside ring: every length, both directions, both placements.

use patronus_aead::{Backend, Key, TAG_LEN};

/// A fixed sequence that looks random (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn key(&mut self) -> [u8; 32] {
        self.bytes(32).try_into().expect("32 bytes")
    }
}

const COUNTERS: [u64; 6] = [0, 1, u32::MAX as u64, 1 << 32, u64::MAX - 1, u64::MAX];

fn check(noise: &mut Noise, len: usize, counter: u64) {
    let bytes = noise.key();
    let ring = Key::with_backend(&bytes, Backend::Ring).expect("ring is everywhere");
    let ours = Key::new(&bytes);
    let plain = noise.bytes(len);
    let mut expected = vec![0; len + TAG_LEN];
    ring.seal_to(counter, &plain, &mut expected);

    let mut apart = noise.bytes(len + TAG_LEN + 3);
    let beyond = apart[len + TAG_LEN..].to_vec();
    assert_eq!(ours.seal_to(counter, &plain, &mut apart), len + TAG_LEN);
    assert_eq!(
        apart[..len + TAG_LEN],
        expected,
        "{len} bytes, counter {counter}"
    );
    assert_eq!(apart[len + TAG_LEN..], beyond, "written past the end");

    let mut in_place = [&plain[..], &noise.bytes(TAG_LEN + 3)].concat();
    let beyond = in_place[len + TAG_LEN..].to_vec();
    ours.seal_in_place(counter, &mut in_place, len);
    assert_eq!(in_place[..len + TAG_LEN], expected, "{len} bytes in place");
    assert_eq!(
        in_place[len + TAG_LEN..],
        beyond,
        "written past the end in place"
    );

    let mut opened = noise.bytes(len + 3);
    let beyond = opened[len..].to_vec();
    assert_eq!(ours.open_to(counter, &expected, &mut opened), Ok(len));
    assert_eq!(opened[..len], plain);
    assert_eq!(opened[len..], beyond, "opened past the end");
    let sealed = &mut in_place[..len + TAG_LEN];
    assert_eq!(ours.open_in_place(counter, sealed), Ok(len));
    assert_eq!(sealed[..len], plain);
}

#[test]
fn every_length_seals_and_opens_as_ring_does() {
    let mut noise = Noise(1);
    for len in 0..=2100 {
        let counter = noise.next();
        check(&mut noise, len, counter);
    }
    for len in [
        4095, 4096, 8191, 8192, 9000, 16384, 16400, 65519, 65520, 65535,
    ] {
        let counter = noise.next();
        check(&mut noise, len, counter);
    }
}

#[test]
fn extreme_counters_make_the_same_nonce_as_with_ring() {
    let mut noise = Noise(2);
    for counter in COUNTERS {
        for len in [0, 1, 16, 64, 65, 192, 193, 448, 704, 960, 961, 1424, 1985] {
            check(&mut noise, len, counter);
        }
    }
}
