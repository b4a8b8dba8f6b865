//! What a site knows of revocations.

use std::collections::{BTreeMap, BTreeSet};

use crate::certificate::{Signer, TrustedCertificate};
use crate::ids::{IssuerId, NetworkId, SiteId};
use crate::revocation::{
    Have, ListId, REVOKED_MAX, RevocationPart, RevocationQuery, RevokedId, VerifiedPart,
};
use crate::signing::{Domain, hash};
use crate::wire::Put;

/// Most signers whose lists a site keeps.
pub const SIGNERS_MAX: usize = 8;

/// What a part changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was new: pass it on, and look at who is revoked.
    New,
    /// It was known.
    Known,
    /// There is a newer version of the list.
    Old,
    /// The signer signed something else under the same version: somebody should look at that. The first stays.
    Conflict,
    /// The signer is an issuer that the root revoked.
    SignerRevoked,
    /// More signers than a site keeps; the root is always among them.
    TooManySigners,
}

/// Why a certificate is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokedBy {
    /// The site is revoked.
    Site,
    /// Its issuer is revoked.
    Issuer(IssuerId),
}

/// All lists that a site knows.
#[derive(Clone, Debug)]
pub struct Revocations {
    network: NetworkId,
    lists: BTreeMap<ListId, List>,
    /// What all lists name: made anew with every new part.
    sites: BTreeSet<RevokedId>,
}

#[derive(Clone, Debug)]
struct List {
    issuer: Option<IssuerId>,
    version: u64,
    parts: Vec<Option<RevocationPart>>,
    /// What earlier versions named, until this one is whole.
    earlier: BTreeSet<RevokedId>,
}

impl Revocations {
    /// Nothing is revoked.
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            lists: BTreeMap::new(),
            sites: BTreeSet::new(),
        }
    }

    /// Takes a part that was verified.
    pub fn add(&mut self, part: VerifiedPart) -> Added {
        let part = part.0;
        let issuer = match &part.signer {
            Signer::Root => None,
            Signer::Issuer(delegation) => Some(delegation.issuer_id()),
        };
        if issuer.is_some_and(|issuer| self.is_issuer_revoked(issuer)) {
            return Added::SignerRevoked;
        }
        let id = part.list();
        if !self.lists.contains_key(&id) && issuer.is_some() && self.issuers() == SIGNERS_MAX - 1 {
            return Added::TooManySigners;
        }
        let list = self
            .lists
            .entry(id)
            .or_insert_with(|| List::new(issuer, &part));
        let added = list.add(part);
        if added == Added::New {
            self.renew();
        }
        added
    }

    /// Whether the site is revoked.
    pub fn is_site_revoked(&self, site: SiteId) -> bool {
        self.sites.contains(&site.into())
    }

    /// Whether the root revoked the issuer.
    pub fn is_issuer_revoked(&self, issuer: IssuerId) -> bool {
        let root = self.lists.get(&ListId(*self.network.as_bytes()));
        root.is_some_and(|list| list.names(issuer.into()))
    }

    /// Why the certificate is not to be believed, if so: to be asked whenever one is verified, and of all that are known
    /// whenever a part was [`Added::New`].
    pub fn judge(&self, certificate: &TrustedCertificate) -> Option<RevokedBy> {
        if self.is_site_revoked(certificate.site_id()) {
            return Some(RevokedBy::Site);
        }
        match certificate.certificate().signer() {
            Signer::Root => None,
            Signer::Issuer(delegation) => {
                let issuer = delegation.issuer_id();
                self.is_issuer_revoked(issuer)
                    .then_some(RevokedBy::Issuer(issuer))
            }
        }
    }

    /// A number that two sites have in common exactly when they have the same lists, whole; 0 without lists.
    pub fn state(&self) -> u64 {
        if self.lists.is_empty() {
            return 0;
        }
        let mut all = Vec::new();
        for (id, list) in &self.lists {
            all.put(&id.0);
            all.put_u64(list.version);
            all.put_u32(list.bits());
        }
        let hash = hash(Domain::RevocationState, &all);
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        u64::from_le_bytes(first)
    }

    /// Asks for what this site does not have.
    pub fn query(&self) -> RevocationQuery {
        let have = self.lists.iter().map(|(id, list)| Have {
            list: *id,
            version: list.version,
            parts: list.bits(),
        });
        RevocationQuery::new(self.network, have)
    }

    /// A part that the asker does not have: the root's first.
    pub fn answer(&self, query: &RevocationQuery) -> Option<&RevocationPart> {
        let missing = |id: &ListId, list: &'_ List| {
            let have = query.have().iter().find(|have| have.list == *id);
            let (version, bits) = have.map_or((0, 0), |have| (have.version, have.parts));
            let known = match list.version.cmp(&version) {
                std::cmp::Ordering::Less => return None,
                std::cmp::Ordering::Equal => bits,
                std::cmp::Ordering::Greater => 0,
            };
            (0..list.parts.len()).find(|at| known >> at & 1 == 0 && list.parts[*at].is_some())
        };
        let root = ListId(*self.network.as_bytes());
        let mut lists: Vec<_> = self.lists.iter().collect();
        lists.sort_by_key(|(id, _)| **id != root);
        lists.into_iter().find_map(|(id, list)| {
            let at = missing(id, list)?;
            list.parts[at].as_ref()
        })
    }

    /// All parts that are known, to be kept over a restart.
    pub fn parts(&self) -> impl Iterator<Item = &RevocationPart> {
        self.lists
            .values()
            .flat_map(|list| list.parts.iter().flatten())
    }

    fn issuers(&self) -> usize {
        self.lists
            .values()
            .filter(|list| list.issuer.is_some())
            .count()
    }

    /// Drops lists of revoked issuers and collects what the others name.
    fn renew(&mut self) {
        let revoked: Vec<ListId> = self
            .lists
            .iter()
            .filter(|(_, list)| list.issuer.is_some_and(|id| self.is_issuer_revoked(id)))
            .map(|(id, _)| *id)
            .collect();
        for id in revoked {
            self.lists.remove(&id);
        }
        self.sites = self.lists.values().flat_map(List::ids).collect();
    }
}

impl List {
    fn new(issuer: Option<IssuerId>, part: &RevocationPart) -> Self {
        Self {
            issuer,
            version: part.version,
            parts: vec![None; usize::from(part.parts)],
            earlier: BTreeSet::new(),
        }
    }

    fn add(&mut self, part: RevocationPart) -> Added {
        if part.version < self.version {
            return Added::Old;
        }
        if part.version > self.version {
            let mut earlier: BTreeSet<RevokedId> = self.ids().collect();
            while earlier.len() > 2 * REVOKED_MAX {
                earlier.pop_last();
            }
            *self = Self {
                earlier,
                ..Self::new(self.issuer, &part)
            };
        }
        let at = usize::from(part.part);
        if self.parts.len() != usize::from(part.parts) || !self.fits(at, &part) {
            return Added::Conflict;
        }
        match &self.parts[at] {
            Some(known) if known.ids == part.ids => return Added::Known,
            Some(_) => return Added::Conflict,
            None => self.parts[at] = Some(part),
        }
        if self.parts.iter().all(Option::is_some) {
            self.earlier.clear();
        }
        Added::New
    }

    /// Whether ids ascend over the neighbouring parts, as far as those are there.
    fn fits(&self, at: usize, part: &RevocationPart) -> bool {
        let before = self.parts[..at].iter().flatten().next_back();
        let after = self.parts[at + 1..].iter().flatten().next();
        let first = part.ids.first();
        let last = part.ids.last();
        before.is_none_or(|before| before.ids.last() < first)
            && after.is_none_or(|after| last < after.ids.first())
    }

    fn ids(&self) -> impl Iterator<Item = RevokedId> {
        let present = self.parts.iter().flatten().flat_map(|part| &part.ids);
        present.chain(&self.earlier).copied()
    }

    fn names(&self, id: RevokedId) -> bool {
        let parts = || self.parts.iter().flatten();
        self.earlier.contains(&id) || parts().any(|part| part.ids.binary_search(&id).is_ok())
    }

    /// Which parts are there, by bit.
    fn bits(&self) -> u32 {
        let bit = |(at, part): (usize, &Option<RevocationPart>)| u32::from(part.is_some()) << at;
        self.parts.iter().enumerate().map(bit).sum()
    }
}
