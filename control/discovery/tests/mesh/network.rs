//! A network's keys, and what makes a site of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use patronus_discovery::certificate::Content;
use patronus_discovery::machine::{Config, Identity, InterfaceId, LanInterface, Now, OwnKeys};
use patronus_discovery::{
    Certificate, DiscoveryKey, Endpoint, EndpointKind, Issuing, Keyring, Machine, Name, NetworkId,
    RevocationList, RevocationPart, RootKey, Serial, SiteId, SiteKey, Subject, Validity, WallTime,
    WireGuardKey,
};
use rand_core::{CryptoRng, Error, RngCore};

pub const DAY: Duration = Duration::from_secs(86_400);
/// When every test begins.
pub const START: WallTime = WallTime(1_800_000_000_000);

/// Chance for tests: SplitMix64.
#[derive(Clone)]
pub struct TestRng(pub u64);

impl TestRng {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit.max(1)
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 <= probability && probability > 0.0
    }

    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill_bytes(&mut seed);
        seed
    }
}

impl RngCore for TestRng {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for TestRng {}

/// A network's secrets.
pub struct Network {
    pub root: RootKey,
    pub key: DiscoveryKey,
    pub rng: TestRng,
    pub serial: u64,
}

/// A site's secrets and papers.
#[derive(Clone)]
pub struct Papers {
    pub key: SiteKey,
    pub certificate: Certificate,
    pub wireguard: OwnKeys,
    pub boot_epoch: u64,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        let mut rng = TestRng(seed);
        Self {
            root: RootKey::generate(&mut rng),
            key: DiscoveryKey::generate(&mut rng),
            rng,
            serial: 0,
        }
    }

    pub fn id(&self) -> NetworkId {
        self.root.id()
    }

    pub fn site(&mut self, subject: Subject) -> Papers {
        let key = SiteKey::generate(&mut self.rng);
        let certificate = self.certify(&key, subject, validity(START, 14));
        Papers {
            key,
            certificate,
            wireguard: OwnKeys {
                current: self.wireguard_key(),
                since: START,
                next: None,
                previous: None,
            },
            boot_epoch: 1,
        }
    }

    pub fn named(&mut self, name: &str) -> Papers {
        self.site(subject(name))
    }

    pub fn certify(&mut self, key: &SiteKey, subject: Subject, validity: Validity) -> Certificate {
        self.serial += 1;
        let content = Content {
            network: self.id(),
            site_key: key.public_key(),
            serial: Serial(self.serial),
            validity,
            subject,
        };
        Certificate::issue(content, Issuing::Root(&self.root)).unwrap()
    }

    pub fn wireguard_key(&mut self) -> WireGuardKey {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        bytes[31] &= 0x3f;
        WireGuardKey::new(bytes).unwrap()
    }

    pub fn revoke(&self, version: u64, sites: &[SiteId], at: WallTime) -> Vec<RevocationPart> {
        let ids = sites.iter().map(|id| (*id).into());
        let list = RevocationList::new(self.id(), version, at, ids).unwrap();
        list.sign(Issuing::Root(&self.root)).unwrap()
    }

    pub fn config(&self, papers: &Papers) -> Config {
        Config::new(Keyring::new(self.key.clone()), papers.certificate.clone())
    }

    pub fn machine(
        &mut self,
        papers: &Papers,
        config: Config,
        cache: Option<&[u8]>,
        now: Now,
    ) -> Machine {
        let identity = Identity {
            root: self.root.public_key(),
            site_key: papers.key.clone(),
            boot_epoch: papers.boot_epoch,
            wireguard: papers.wireguard,
        };
        Machine::new(identity, config, cache, self.rng.seed(), now).unwrap()
    }
}

impl Papers {
    pub fn id(&self) -> SiteId {
        self.key.id()
    }
}

pub fn subject(name: &str) -> Subject {
    Subject::named(name.parse::<Name>().unwrap())
}

/// From a day before `from`, so many days from then.
pub fn validity(from: WallTime, days: u32) -> Validity {
    Validity::new(from - DAY, from + DAY * days).unwrap()
}

/// Some instant: only differences matter.
#[allow(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
pub fn epoch() -> Instant {
    Instant::now()
}

pub fn lan(id: u32) -> LanInterface {
    LanInterface {
        id: InterfaceId(id),
        has_v4: true,
        has_v6: false,
    }
}

pub fn endpoint(kind: EndpointKind, ip: IpAddr, port: u16) -> Endpoint {
    Endpoint {
        kind,
        uplink: "wan".parse().unwrap(),
        address: SocketAddr::new(ip, port),
        mtu: None,
        cost: Default::default(),
    }
}
