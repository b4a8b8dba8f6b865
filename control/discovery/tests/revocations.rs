//! Lists of revocations: signed, split, put together, asked for.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use patronus_discovery::revocation::{Added, ListError, RevokedBy, RevokedId};
use patronus_discovery::*;
use proptest::prelude::*;

fn numbered(at: u16) -> SiteId {
    let mut bytes = [1; 16];
    bytes[..2].copy_from_slice(&at.to_be_bytes());
    SiteId::from_bytes(bytes)
}

fn parts(
    version: u64,
    ids: impl IntoIterator<Item = RevokedId>,
    by: Issuing<'_>,
) -> Vec<RevocationPart> {
    RevocationList::new(network(), version, NOW, ids)
        .unwrap()
        .sign(by)
        .unwrap()
}

fn by_root(version: u64, sites: impl IntoIterator<Item = u16>) -> Vec<RevocationPart> {
    let ids = sites.into_iter().map(|at| numbered(at).into());
    parts(version, ids, Issuing::Root(&root()))
}

fn add(known: &mut Revocations, part: &RevocationPart) -> Added {
    known.add(part.clone().verify(&mut trust()).unwrap())
}

#[test]
fn a_list_of_every_length_is_split_and_put_together_again() {
    for len in [0, 1, 47, 48, 49, 96, 97, 1023, 1024] {
        let parts = by_root(1, 0..len);
        assert_eq!(parts.len(), usize::from(len.div_ceil(48).max(1)), "{len}");
        let mut known = Revocations::new(network());
        for part in parts.iter().rev() {
            let read = RevocationPart::decode(part.as_bytes());
            assert_eq!(read.as_ref(), Ok(part));
            assert_eq!(add(&mut known, part), Added::New);
            assert_eq!(add(&mut known, part), Added::Known);
        }
        assert!((0..len).all(|at| known.is_site_revoked(numbered(at))));
        assert!(!known.is_site_revoked(numbered(len)));
    }
    let list = RevocationList::new(network(), 1, NOW, (0..1025).map(|at| numbered(at).into()));
    assert_eq!(list, Err(ListError::TooMany(1025)));
}

#[test]
fn a_part_counts_at_once_and_the_earlier_version_until_the_new_one_is_whole() {
    let mut known = Revocations::new(network());
    by_root(1, [500]).iter().for_each(|part| {
        add(&mut known, part);
    });
    let next = by_root(2, 0..100);
    add(&mut known, &next[1]);
    assert!(known.is_site_revoked(numbered(48)), "of the part that came");
    assert!(
        !known.is_site_revoked(numbered(0)),
        "of a part that did not"
    );
    assert!(
        known.is_site_revoked(numbered(500)),
        "of the version before"
    );
    add(&mut known, &next[0]);
    add(&mut known, &next[2]);
    assert!(
        !known.is_site_revoked(numbered(500)),
        "the new version is whole"
    );
    assert_eq!(add(&mut known, &by_root(1, [500])[0]), Added::Old);
    assert!(!known.is_site_revoked(numbered(500)));
}

#[test]
fn the_first_of_two_lists_with_one_version_stays() {
    let mut known = Revocations::new(network());
    add(&mut known, &by_root(1, [1])[0]);
    assert_eq!(add(&mut known, &by_root(1, [2])[0]), Added::Conflict);
    assert_eq!(add(&mut known, &by_root(1, 0..60)[1]), Added::Conflict);
    assert!(known.is_site_revoked(numbered(1)) && !known.is_site_revoked(numbered(2)));
    // Parts that do not ascend over their border are not of one list.
    let mut known = Revocations::new(network());
    add(&mut known, &by_root(1, 10..70)[1]);
    assert_eq!(add(&mut known, &by_root(1, 40..100)[0]), Added::Conflict);
}

#[test]
fn the_root_revokes_an_issuer_and_with_it_its_certificates_and_its_list() {
    let mut known = Revocations::new(network());
    let delegation = delegation();
    let by_issuer = Issuing::Issuer(&issuer(), &delegation);
    let issuers = parts(u64::MAX, [numbered(1).into()], by_issuer);
    assert_eq!(add(&mut known, &issuers[0]), Added::New);
    assert!(known.is_site_revoked(numbered(1)));
    assert_eq!(known.judge(&trusted()), None);

    let roots = parts(1, [issuer().id().into()], Issuing::Root(&root()));
    assert_eq!(add(&mut known, &roots[0]), Added::New);
    assert_eq!(
        known.judge(&trusted()),
        Some(RevokedBy::Issuer(issuer().id()))
    );
    let by_the_root = root_certificate().verify(&mut trust()).unwrap();
    assert_eq!(known.judge(&by_the_root), None);
    assert!(!known.is_site_revoked(numbered(1)), "its list is gone");
    assert_eq!(add(&mut known, &issuers[0]), Added::SignerRevoked);
}

#[test]
fn an_issuer_cannot_revoke_an_issuer() {
    let mut known = Revocations::new(network());
    let delegation = delegation();
    let other = IssuerKey::from_bytes(&[51; 32]).id();
    let ids = [issuer().id().into(), other.into()];
    let list = parts(1, ids, Issuing::Issuer(&issuer(), &delegation));
    add(&mut known, &list[0]);
    assert!(!known.is_issuer_revoked(issuer().id()) && !known.is_issuer_revoked(other));
}

#[test]
fn a_revoked_site_is_revoked_with_every_certificate() {
    let mut known = Revocations::new(network());
    add(
        &mut known,
        &parts(1, [site().id().into()], Issuing::Root(&root()))[0],
    );
    assert_eq!(known.judge(&trusted()), Some(RevokedBy::Site));
    let by_the_root = root_certificate().verify(&mut trust()).unwrap();
    assert_eq!(known.judge(&by_the_root), Some(RevokedBy::Site));
}

#[test]
fn a_list_of_an_issuer_without_that_power_or_out_of_its_time_is_neither_made_nor_believed() {
    let delegate = |validity, powers| {
        Delegation::new(
            &root(),
            issuer().public_key(),
            Serial(1),
            validity,
            powers,
            Roles::ALL,
        )
    };
    for (delegation, fault) in [
        (
            delegate(days(0, 200), Powers::CERTIFY),
            CertificateError::NoPower,
        ),
        (
            delegate(days(0, 99), Powers::ALL),
            CertificateError::OutsideDelegation,
        ),
        (
            delegate(days(101, 200), Powers::ALL),
            CertificateError::OutsideDelegation,
        ),
    ] {
        let list = RevocationList::new(network(), 1, NOW, [numbered(1).into()]).unwrap();
        let made = list.sign(Issuing::Issuer(&issuer(), &delegation));
        assert_eq!(made, Err(ListError::Refused(fault)));
    }
}

#[test]
fn a_site_keeps_the_lists_of_seven_issuers_and_always_the_roots() {
    let mut known = Revocations::new(network());
    let list = |seed: u8| {
        let key = IssuerKey::from_bytes(&[seed; 32]);
        let delegation = Delegation::new(
            &root(),
            key.public_key(),
            Serial(1),
            days(0, 200),
            Powers::ALL,
            Roles::ALL,
        );
        parts(
            1,
            [numbered(u16::from(seed)).into()],
            Issuing::Issuer(&key, &delegation),
        )
        .remove(0)
    };
    for seed in 60..67 {
        assert_eq!(add(&mut known, &list(seed)), Added::New);
    }
    assert_eq!(add(&mut known, &list(67)), Added::TooManySigners);
    assert_eq!(add(&mut known, &by_root(1, [1])[0]), Added::New);
    assert_eq!(known.query().have().len(), 8);
}

#[test]
fn who_asks_again_and_again_gets_everything_and_then_nothing() {
    let mut full = Revocations::new(network());
    by_root(3, 0..1024).iter().for_each(|part| {
        add(&mut full, part);
    });
    let delegation = delegation();
    let issuers = parts(
        9,
        [numbered(5000).into()],
        Issuing::Issuer(&issuer(), &delegation),
    );
    add(&mut full, &issuers[0]);
    let mut empty = Revocations::new(network());
    assert_eq!(empty.state(), 0);
    add(&mut empty, &by_root(2, [1])[0]);
    let mut asked = 0;
    while let Some(part) = full.answer(&empty.query()) {
        assert_ne!(empty.state(), full.state());
        assert_eq!(add(&mut empty, &part.clone()), Added::New);
        asked += 1;
        assert!(asked <= 23, "22 parts and 1");
    }
    assert_eq!(asked, 23);
    assert_eq!(empty.state(), full.state());
    assert_eq!(empty.answer(&full.query()), None);
    assert!(empty.is_site_revoked(numbered(5000)) && empty.is_site_revoked(numbered(1023)));
}

/// What is known by a much simpler rule: of every version, the parts that came; the newest one, and what older ones
/// named as long as it is not whole.
#[derive(Default)]
struct Model {
    version: u64,
    came: BTreeSet<usize>,
    named: BTreeSet<u16>,
    earlier: BTreeSet<u16>,
}

impl Model {
    fn add(&mut self, version: u64, part: usize, parts: usize, ids: BTreeSet<u16>) {
        if version < self.version {
            return;
        }
        if version > self.version {
            self.earlier.append(&mut self.named);
            self.came.clear();
            self.version = version;
        }
        self.came.insert(part);
        self.named.extend(ids);
        if self.came.len() == parts {
            self.earlier.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn parts_in_any_order_revoke_what_a_simple_model_says(
        lists in prop::collection::btree_map(1_u64..5, prop::collection::btree_set(0_u16..400, 0..130), 1..4),
        steps in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 1..30),
    ) {
        let signed: BTreeMap<u64, Vec<RevocationPart>> = lists
            .iter()
            .map(|(version, sites)| (*version, by_root(*version, sites.iter().copied())))
            .collect();
        let versions: Vec<u64> = signed.keys().copied().collect();
        let (mut known, mut model) = (Revocations::new(network()), Model::default());
        for (version, part) in steps {
            let version = *version.get(&versions);
            let at = part.index(signed[&version].len());
            let sites: Vec<u16> = lists[&version].iter().copied().collect();
            let ids = sites.chunks(48).nth(at).unwrap_or_default().iter().copied().collect();
            add(&mut known, &signed[&version][at]);
            model.add(version, at, signed[&version].len(), ids);
            for site in 0..400 {
                let expected = model.named.contains(&site) || model.earlier.contains(&site);
                prop_assert_eq!(known.is_site_revoked(numbered(site)), expected, "site {}", site);
            }
        }
    }
}
