//! Our backend beside ring: every length, both directions, both placements.

use patronus_aead::{Backend, BadTag, Key, Opening, Sealing, TAG_LEN};

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
    let ours = Key::with_backend(&bytes, Backend::best()).expect("the best one is available");
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

/// One by one with ring, and in a batch with ours.
fn check_batch(noise: &mut Noise, lens: &[usize]) {
    let bytes = noise.key();
    let ring = Key::with_backend(&bytes, Backend::Ring).expect("ring is everywhere");
    let ours = Key::with_backend(&bytes, Backend::best()).expect("the best one is available");
    let counters: Vec<u64> = lens.iter().map(|_| noise.next()).collect();
    let plain: Vec<Vec<u8>> = lens.iter().map(|len| noise.bytes(*len)).collect();
    let padded: Vec<usize> = lens
        .iter()
        .map(|len| len + noise.next() as usize % 90)
        .collect();
    let mut expected: Vec<Vec<u8>> = padded.iter().map(|len| vec![0; len + TAG_LEN]).collect();
    for (i, expected) in expected.iter_mut().enumerate() {
        ring.seal_padded_to(counters[i], &plain[i], padded[i], expected);
    }

    let mut sealed: Vec<Vec<u8>> = padded
        .iter()
        .map(|len| noise.bytes(len + TAG_LEN + 3))
        .collect();
    let mut batch: Vec<Sealing<'_>> = sealed
        .iter_mut()
        .enumerate()
        .map(|(i, dst)| Sealing::new(counters[i], &plain[i], padded[i], dst))
        .collect();
    ours.seal_batch(&mut batch);
    for (sealed, expected) in sealed.iter().zip(&expected) {
        assert_eq!(sealed[..expected.len()], expected[..], "of {lens:?}");
    }

    // Every third has a wrong bit somewhere.
    let mut opened: Vec<Vec<u8>> = padded.iter().map(|len| vec![0xEE; len + 3]).collect();
    for sealed in expected.iter_mut().skip(2).step_by(3) {
        let bit = noise.next() as usize % (sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
    }
    let mut batch: Vec<Opening<'_>> = opened
        .iter_mut()
        .enumerate()
        .map(|(i, dst)| Opening::new(counters[i], &expected[i], dst).expect("it has a tag"))
        .collect();
    ours.open_batch(&mut batch);
    let outcomes: Vec<Result<usize, BadTag>> = batch.iter().map(Opening::opened).collect();
    for (i, outcome) in outcomes.into_iter().enumerate() {
        let (opened, beyond) = opened[i].split_at(padded[i]);
        assert_eq!(beyond, [0xEE; 3], "opened past the end");
        if i % 3 == 2 {
            assert_eq!(outcome, Err(BadTag));
            assert!(opened.iter().all(|byte| *byte == 0xEE || *byte == 0));
            continue;
        }
        assert_eq!(outcome, Ok(padded[i]));
        assert_eq!(opened[..lens[i]], plain[i]);
        assert!(opened[lens[i]..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn batches_seal_and_open_as_ring_does_one_by_one() {
    let mut noise = Noise(3);
    for len in 0..=260 {
        for count in 0..=9 {
            check_batch(&mut noise, &vec![len; count]);
        }
    }
    for _ in 0..2000 {
        let count = noise.next() as usize % 30;
        let long_max = [200, 800][noise.next() as usize % 2];
        let lens: Vec<usize> = (0..count)
            .map(|_| noise.next() as usize % long_max)
            .collect();
        check_batch(&mut noise, &lens);
    }
}
