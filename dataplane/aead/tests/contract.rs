//! What every backend promises, beside right answers: nothing forged is opened, nothing is written where there is no
//! room, and no key is printed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use patronus_aead::{Backend, BadTag, Key, Opening, PLAINTEXT_MAX, Sealing, TAG_LEN};
use proptest::prelude::*;

fn keys(bytes: &[u8; 32]) -> Vec<Key> {
    Backend::available()
        .map(|backend| Key::with_backend(bytes, backend).expect("it is available"))
        .collect()
}

fn panics(act: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(act)).is_err()
}

#[test]
fn the_best_backend_is_the_last_that_is_available() {
    assert_eq!(Backend::available().last(), Some(Backend::best()));
    assert_eq!(Key::new(&[1; 32]).backend(), Backend::best());
    for backend in Backend::ALL {
        let key = Key::with_backend(&[1; 32], backend);
        assert_eq!(key.is_some(), backend.is_available(), "{backend}");
        assert!(key.is_none_or(|key| key.backend() == backend));
    }
}

#[test]
fn an_empty_packet_is_a_tag_that_is_known() {
    // A WireGuard keepalive, with the key 00 01 .. 1f, counter 7; the value is OpenSSL's.
    let bytes = core::array::from_fn(|i| i as u8);
    for key in keys(&bytes) {
        let mut sealed = [0; TAG_LEN];
        assert_eq!(key.seal_to(7, &[], &mut sealed), TAG_LEN);
        assert_eq!(sealed, KEEPALIVE, "{key:?}");
    }
}

#[test]
fn a_packet_of_four_blocks_comes_out_as_it_does_elsewhere() {
    let bytes = core::array::from_fn(|i| i as u8);
    let plain: Vec<u8> = (0..100).collect();
    for key in keys(&bytes) {
        let mut sealed = [0; 100 + TAG_LEN];
        key.seal_to(0x0123_4567_89ab_cdef, &plain, &mut sealed);
        assert_eq!(sealed[..16], HUNDRED_START, "{key:?}");
        assert_eq!(sealed[100..], HUNDRED_TAG, "{key:?}");
    }
}

#[test]
fn no_wrong_bit_is_overlooked() {
    for key in keys(&[3; 32]) {
        for len in [0, 1, 16, 47, 64, 65, 100, 200] {
            let plain = vec![0x5A; len];
            let mut sealed = vec![0; len + TAG_LEN];
            key.seal_to(9, &plain, &mut sealed);
            for bit in 0..sealed.len() * 8 {
                sealed[bit / 8] ^= 1 << (bit % 8);
                let mut opened = vec![0xEE; len];
                assert_eq!(
                    key.open_to(9, &sealed, &mut opened),
                    Err(BadTag),
                    "bit {bit}"
                );
                assert!(
                    opened.iter().all(|byte| [0, 0xEE].contains(byte)),
                    "plaintext got out"
                );
                let mut in_place = sealed.clone();
                assert_eq!(key.open_in_place(9, &mut in_place), Err(BadTag));
                let untouched = in_place == sealed;
                assert!(untouched || in_place[..len].iter().all(|byte| *byte == 0));
                sealed[bit / 8] ^= 1 << (bit % 8);
            }
            assert_eq!(
                key.open_to(10, &sealed, &mut vec![0; len]),
                Err(BadTag),
                "another counter"
            );
            assert_eq!(key.open_to(9, &sealed, &mut vec![0; len]), Ok(len));
        }
    }
}

#[test]
fn a_packet_cut_short_is_refused() {
    for key in keys(&[4; 32]) {
        let mut sealed = vec![0; 160 + TAG_LEN];
        key.seal_to(0, &[7; 160], &mut sealed);
        for len in 0..sealed.len() {
            assert_eq!(key.open_to(0, &sealed[..len], &mut [0; 160]), Err(BadTag));
            assert_eq!(
                key.open_in_place(0, &mut sealed.clone()[..len]),
                Err(BadTag)
            );
        }
        assert!(Opening::new(0, &sealed[..TAG_LEN - 1], &mut []).is_err());
    }
}

#[test]
fn too_little_room_is_noticed_before_anything_is_written() {
    for key in keys(&[5; 32]) {
        for len in [0, 1, 64, 100, 1424] {
            let plain = vec![1; len];
            let mut short = vec![0xEE; len + TAG_LEN - 1];
            assert!(panics(|| _ = key.seal_to(0, &plain, &mut short)));
            assert!(panics(|| _ = key.seal_in_place(0, &mut short, len)));
            assert!(panics(|| _ = Sealing::new(0, &plain, len, &mut short)));
            assert!(panics(
                || _ = key.seal_padded_to(0, &plain, len + 1, &mut short)
            ));
            assert!(short.iter().all(|byte| *byte == 0xEE));

            let mut sealed = vec![0; len + 1 + TAG_LEN];
            key.seal_padded_to(0, &plain, len + 1, &mut sealed);
            let mut short = vec![0xEE; len];
            assert!(panics(|| _ = key.open_to(0, &sealed, &mut short)));
            assert!(panics(|| _ = Opening::new(0, &sealed, &mut short)));
            assert!(short.iter().all(|byte| *byte == 0xEE));
        }
        assert!(
            panics(|| _ = key.seal_padded_to(0, &[1; 2], 1, &mut [0; 64])),
            "less than nothing"
        );
        let mut huge = vec![0; PLAINTEXT_MAX + 1 + TAG_LEN];
        assert!(panics(
            || _ = key.seal_in_place(0, &mut huge, PLAINTEXT_MAX + 1)
        ));
        assert_eq!(key.open_in_place(0, &mut huge), Err(BadTag));
    }
}

#[test]
fn a_batch_that_nobody_opened_is_not_authentic() {
    let mut sealed = [0; TAG_LEN];
    Key::new(&[6; 32]).seal_to(0, &[], &mut sealed);

    let opening = Opening::new(0, &sealed, &mut []).expect("it has a tag");

    assert_eq!(opening.opened(), Err(BadTag));
}

#[test]
fn no_key_is_printed() {
    for key in keys(&[0xAB; 32]) {
        let text = format!("{key:?}");
        assert!(!text.contains("ab") && !text.contains("171"), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 3000 }))]

    #[test]
    fn backends_agree_on_anything(
        bytes: [u8; 32],
        counter: u64,
        plain in proptest::collection::vec(any::<u8>(), 0..3000),
        padding in 0_usize..200,
        misaligned in 0_usize..64,
    ) {
        let padded_len = plain.len() + padding;
        let mut expected: Option<Vec<u8>> = None;
        for key in keys(&bytes) {
            let mut apart = vec![0xEE; misaligned + padded_len + TAG_LEN];
            let dst = &mut apart[misaligned..];
            prop_assert_eq!(key.seal_padded_to(counter, &plain, padded_len, dst), padded_len + TAG_LEN);
            let mut in_place = plain.clone();
            in_place.resize(padded_len + TAG_LEN, 0xEE);
            key.seal_padded_in_place(counter, &mut in_place, plain.len(), padded_len);
            prop_assert_eq!(&dst[..], &in_place[..]);
            prop_assert_eq!(&dst[..], &expected.get_or_insert_with(|| in_place.clone())[..]);

            let mut opened = vec![0xEE; padded_len];
            prop_assert_eq!(key.open_to(counter, dst, &mut opened), Ok(padded_len));
            prop_assert_eq!(&opened[..plain.len()], &plain[..]);
            prop_assert!(opened[plain.len()..].iter().all(|byte| *byte == 0));
            prop_assert_eq!(key.open_in_place(counter, &mut in_place), Ok(padded_len));
            prop_assert_eq!(&in_place[..padded_len], &opened[..]);
        }
    }
}

const KEEPALIVE: [u8; 16] = [
    0x2e, 0x92, 0xae, 0xb2, 0xbd, 0x89, 0x01, 0xba, 0x4a, 0x3d, 0xfe, 0x80, 0x92, 0x1b, 0x69, 0xd2,
];
const HUNDRED_START: [u8; 16] = [
    0x6a, 0xa0, 0x61, 0x04, 0xed, 0x1b, 0x67, 0x91, 0x17, 0x44, 0x4c, 0x69, 0xf9, 0x5e, 0xf9, 0xab,
];
const HUNDRED_TAG: [u8; 16] = [
    0x6b, 0x4c, 0xfb, 0x70, 0x68, 0x74, 0x29, 0xfa, 0x44, 0x90, 0x4b, 0xf9, 0x1a, 0xf7, 0x8f, 0xe6,
];
