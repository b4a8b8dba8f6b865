//! What implementations of Ed25519 disagree about, in the spirit of Wycheproof: here it is refused.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::*;
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use patronus_discovery::*;
use sha2::{Digest, Sha512};

/// The order of the base point, little endian (RFC 8032, 5.1).
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn key(bytes: &[u8]) -> Result<SitePublicKey, WeakKey> {
    SitePublicKey::from_bytes(bytes.try_into().unwrap())
}

/// Our announcement with another signature.
fn with_signature(signature: &[u8; 64]) -> Signed<Announcement> {
    let mut body = Signed::sign(announcement(), &site()).as_bytes().to_vec();
    let at = body.len() - 64;
    body[at..].copy_from_slice(signature);
    match Message::decode_body(MessageKind::Announce, &body) {
        Ok(Message::Announce(signed)) => signed,
        other => panic!("{other:?}"),
    }
}

fn signature() -> [u8; 64] {
    *Signed::sign(announcement(), &site())
        .as_bytes()
        .last_chunk()
        .unwrap()
}

/// What is signed, by the documentation: domain, zero, bytes before the signature.
fn signed_bytes() -> Vec<u8> {
    let body = Signed::sign(announcement(), &site()).as_bytes().to_vec();
    [b"patronus/announce/1\0", &body[..body.len() - 64]].concat()
}

/// The scalar of a secret key (RFC 8032, 5.1.5).
fn scalar(seed: [u8; 32]) -> Scalar {
    let hash = Sha512::digest(seed);
    let mut low: [u8; 32] = hash[..32].try_into().unwrap();
    low[0] &= 248;
    low[31] = (low[31] & 63) | 64;
    Scalar::from_bytes_mod_order(low)
}

fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new()
        .chain_update(r)
        .chain_update(key)
        .chain_update(message);
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

#[test]
fn keys_of_rfc_8032_are_what_it_says() {
    for (seed, public) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        ),
    ] {
        let secret = SiteKey::from_bytes(unhex(seed).as_slice().try_into().unwrap());
        assert_eq!(secret.public_key().as_bytes().to_vec(), unhex(public));
        assert_eq!(key(&unhex(public)), Ok(secret.public_key()));
    }
}

#[test]
fn keys_of_small_order_are_refused() {
    for point in EIGHT_TORSION {
        let bytes = point.compress().to_bytes();
        assert_eq!(key(&bytes), Err(WeakKey), "{bytes:02x?}");
        let mut with_sign = bytes;
        with_sign[31] ^= 0x80;
        assert_eq!(key(&with_sign), Err(WeakKey), "{with_sign:02x?}");
    }
}

#[test]
fn every_second_encoding_of_a_key_is_refused() {
    let mut points = 0;
    for low in 0xed..=0xff {
        for high in [0x7f, 0xff] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            points += usize::from(CompressedEdwardsY(bytes).decompress().is_some());
            assert_eq!(key(&bytes), Err(WeakKey), "{bytes:02x?}");
        }
    }
    assert!(points > 10, "only {points} of them are points at all");
}

#[test]
fn bytes_that_are_no_point_are_refused() {
    let mut bytes = [0; 32];
    bytes[0] = 2;
    assert!(CompressedEdwardsY(bytes).decompress().is_none());
    assert_eq!(key(&bytes), Err(WeakKey));
}

#[test]
fn a_certificate_for_a_key_of_small_order_is_no_certificate() {
    let mut encoded = certificate().as_bytes().to_vec();
    encoded[17..49].copy_from_slice(EIGHT_TORSION[1].compress().as_bytes());
    let fault = Certificate::decode(&encoded).unwrap_err();
    assert_eq!((fault.field, fault.fault), ("site key", Fault::Key));
}

#[test]
fn s_plus_the_order_is_refused() {
    let mut changed = signature();
    let mut carry = 0;
    for (byte, add) in changed[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "S + L fits 32 bytes");
    let refused = with_signature(&changed).verify(&trusted());
    assert_eq!(refused.map(|_| ()), Err(VerifyError::BadSignature));
    assert!(with_signature(&signature()).verify(&trusted()).is_ok());
}

#[test]
fn s_with_high_bits_is_refused() {
    for bit in [0x20, 0x40, 0x80] {
        let mut changed = signature();
        changed[63] |= bit;
        assert!(with_signature(&changed).verify(&trusted()).is_err());
    }
}

#[test]
fn a_signature_by_hand_verifies_so_that_the_next_ones_are_refused_for_their_flaw() {
    let (a, r) = (scalar([3; 32]), Scalar::from(12345_u64));
    let r_bytes = EdwardsPoint::mul_base(&r).compress().to_bytes();
    let k = challenge(&r_bytes, site().public_key().as_bytes(), &signed_bytes());
    let s = (r + k * a).to_bytes();
    let by_hand: [u8; 64] = [r_bytes, s].concat().try_into().unwrap();
    assert!(with_signature(&by_hand).verify(&trusted()).is_ok());
}

#[test]
fn an_r_of_small_order_is_refused() {
    let a = scalar([3; 32]);
    // R is the identity: S = k·a satisfies the equation.
    let r_bytes = EdwardsPoint::identity().compress().to_bytes();
    let k = challenge(&r_bytes, site().public_key().as_bytes(), &signed_bytes());
    let forged: [u8; 64] = [r_bytes, (k * a).to_bytes()].concat().try_into().unwrap();
    assert!(with_signature(&forged).verify(&trusted()).is_err());
}

#[test]
fn an_r_that_only_the_cofactor_excuses_is_refused() {
    // R has a part of order 8, which a check of 8·S·B = 8·R + 8·k·A does not see.
    let (a, r) = (scalar([3; 32]), Scalar::from(12345_u64));
    let point = EdwardsPoint::mul_base(&r) + EIGHT_TORSION[1];
    let r_bytes = point.compress().to_bytes();
    let k = challenge(&r_bytes, site().public_key().as_bytes(), &signed_bytes());
    let s = (r + k * a).to_bytes();
    let forged: [u8; 64] = [r_bytes, s].concat().try_into().unwrap();
    assert!(with_signature(&forged).verify(&trusted()).is_err());
}

#[test]
fn a_signature_of_zeros_and_one_for_another_domain_are_refused() {
    assert!(with_signature(&[0; 64]).verify(&trusted()).is_err());
    let goodbye = message::Goodbye {
        network: network(),
        site: site().id(),
        stamp: announcement().stamp,
        issued_at: NOW,
    };
    let other = Signed::sign(goodbye, &site());
    let other: [u8; 64] = *other.as_bytes().last_chunk().unwrap();
    assert!(with_signature(&other).verify(&trusted()).is_err());
}
