//! What a site remembers over a restart: whom it knew, where they were, whom the operator approved, who is revoked.
//!
//! The cache is signed with the site's own key, so that nobody else's file is read. What is in it proves itself anyway:
//! certificates, announcements and revocations are checked again.

use std::net::SocketAddr;

use crate::announce::Announcement;
use crate::certificate::Certificate;
use crate::ids::SiteId;
use crate::machine::Machine;
use crate::machine::arrival::Door;
use crate::machine::clock::Now;
use crate::machine::events::Event;
use crate::machine::sites::{Admission, Site, VERIFIED_MAX};
use crate::revocation::{PARTS_MAX, RevocationPart, SIGNERS_MAX};
use crate::signed::Signed;
use crate::signing::{Domain, SIGNATURE_LEN, sign, verify};
use crate::time::WallTime;
use crate::wire::{Fault, Malformed, Put, Reader};

/// Longest cache in bytes.
pub const CACHE_LEN_MAX: usize = 12 << 20;

const MAGIC: [u8; 4] = *b"PatC";
const VERSION: u8 = 1;

/// Why a cache was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// Longer than any cache.
    #[error("longer than {CACHE_LEN_MAX} bytes")]
    TooLong,
    /// Not signed by this site's key: changed, cut off, or another site's.
    #[error("not signed with this site's key")]
    NotOurs,
    /// Signed, and still not a cache of this version.
    #[error("written by another version: {0}")]
    Malformed(#[from] Malformed),
}

/// What is kept of a site.
struct Kept {
    was_peer: bool,
    has_left: bool,
    peer_since: WallTime,
    contact: Option<SocketAddr>,
    certificate: Certificate,
    announcement: Signed<Announcement>,
}

impl Machine {
    /// What to give to [`Machine::new`] after a restart. To be kept where nobody else reads it: it says who is where.
    pub fn encode_cache(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put(&MAGIC);
        out.put_u8(VERSION);
        out.put_u32(self.approved.sites.len() as u32);
        for id in &self.approved.sites {
            out.put(id.as_bytes());
        }
        out.put_u32(self.revocations.parts().count() as u32);
        for part in self.revocations.parts() {
            put_long(&mut out, part.as_bytes());
        }
        let mut kept: Vec<&Site> = self.sites.iter().filter(|site| is_kept(site)).collect();
        kept.sort_unstable_by_key(|site| site.order);
        out.put_u32(kept.len() as u32);
        for site in kept {
            put_site(&mut out, site);
        }
        let signature = sign(&self.own.key, Domain::Cache, &out);
        out.put(&signature);
        out
    }

    /// A cache that cannot be read is told of, and the site begins without.
    pub(super) fn take_cache(&mut self, cache: &[u8], now: Now) {
        if self.read_cache(cache, now).is_err() {
            self.tell(Event::CacheRefused);
        }
    }

    fn read_cache(&mut self, cache: &[u8], now: Now) -> Result<(), CacheError> {
        if cache.len() > CACHE_LEN_MAX {
            return Err(CacheError::TooLong);
        }
        let (content, signature) = cache
            .split_last_chunk::<SIGNATURE_LEN>()
            .ok_or(CacheError::NotOurs)?;
        verify(
            &self.own.key.public_key(),
            Domain::Cache,
            content,
            signature,
        )
        .map_err(|_| CacheError::NotOurs)?;
        let mut reader = Reader::new(content);
        let is_ours = reader.array("magic")? == MAGIC && reader.u8("version")? == VERSION;
        if !is_ours {
            return Err(Fault::Unknown.at("version").into());
        }
        let approved = read_approved(&mut reader)?;
        let parts = read_parts(&mut reader)?;
        let kept = read_sites(&mut reader)?;
        reader.finish("cache")?;
        self.approved.sites.extend(approved);
        for part in parts {
            if let Ok(verified) = part.verify(&mut self.trust) {
                self.revocations.add(verified);
            }
        }
        for site in kept {
            self.restore(site, now);
        }
        self.drop_revoked();
        Ok(())
    }

    /// What no longer leads to the root is left out.
    fn restore(&mut self, kept: Kept, now: Now) {
        let Ok(certificate) = kept.certificate.verify(&mut self.trust) else {
            return;
        };
        let Ok(announcement) = kept.announcement.verify(&certificate) else {
            return;
        };
        let id = certificate.site_id();
        if id == self.own.id {
            return;
        }
        let stamp = announcement.content().stamp;
        self.sites.change(id, |site| {
            site.certificate = Some(certificate);
            site.announcement = Some(announcement);
            site.stamp = Some(stamp);
            site.cached_at = Some(now.instant);
            site.has_left = kept.has_left;
            site.contact = kept.contact.map(|address| (Door::Wan, address));
            if kept.was_peer {
                site.admission = Admission::Peer;
                site.peer_since = kept.peer_since;
                site.session.wanted_since = Some(now.instant);
            }
        });
        if let Some(address) = kept.contact {
            self.contacts.remember(id, address, now.instant);
        }
    }
}

fn is_kept(site: &Site) -> bool {
    site.is_verified() && site.admission != Admission::Stranger
}

fn put_site(out: &mut Vec<u8>, site: &Site) {
    let (Some(certificate), Some(announcement)) = (&site.certificate, &site.announcement) else {
        debug_assert!(false, "only verified sites are kept");
        return;
    };
    let was_peer = site.admission == Admission::Peer;
    out.put_u8(u8::from(was_peer) | u8::from(site.has_left) << 1);
    out.put_u64(site.peer_since.0);
    // An address on a LAN means nothing without the LAN, which tells it again by itself.
    match site.contact {
        Some((Door::Wan, address)) => {
            out.put_u16(address.port());
            out.put_address(address.ip());
        }
        Some((Door::Lan(_) | Door::Tunnel(_), _)) | None => out.put_u16(0),
    }
    put_long(out, certificate.certificate().as_bytes());
    put_long(out, announcement.signed().as_bytes());
}

fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u16(bytes.len() as u16);
    out.put(bytes);
}

fn read_count(
    reader: &mut Reader<'_>,
    limit: usize,
    field: &'static str,
) -> Result<usize, Malformed> {
    let count = reader.u32(field)? as usize;
    if count > limit {
        return Err(Fault::TooMany.at(field));
    }
    Ok(count)
}

fn read_long<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], Malformed> {
    let len = usize::from(reader.u16(field)?);
    reader.take(len, field)
}

fn read_approved(reader: &mut Reader<'_>) -> Result<Vec<SiteId>, Malformed> {
    let count = read_count(reader, VERIFIED_MAX, "approved sites")?;
    (0..count)
        .map(|_| Ok(SiteId::from_bytes(reader.array("approved sites")?)))
        .collect()
}

fn read_parts(reader: &mut Reader<'_>) -> Result<Vec<RevocationPart>, Malformed> {
    let count = read_count(reader, SIGNERS_MAX * PARTS_MAX, "revocations")?;
    (0..count)
        .map(|_| RevocationPart::decode(read_long(reader, "revocations")?))
        .collect()
}

fn read_sites(reader: &mut Reader<'_>) -> Result<Vec<Kept>, Malformed> {
    let count = read_count(reader, VERIFIED_MAX, "sites")?;
    (0..count).map(|_| read_site(reader)).collect()
}

fn read_site(reader: &mut Reader<'_>) -> Result<Kept, Malformed> {
    let flags = reader.u8("site's flags")?;
    let peer_since = WallTime(reader.u64("peer since")?);
    let port = reader.u16("contact")?;
    let contact = match port {
        0 => None,
        port => Some(SocketAddr::new(reader.address("contact")?, port)),
    };
    Ok(Kept {
        was_peer: flags & 1 != 0,
        has_left: flags & 2 != 0,
        peer_since,
        contact,
        certificate: Certificate::decode(read_long(reader, "certificate")?)?,
        announcement: Signed::decode(read_long(reader, "announcement")?)?,
    })
}
