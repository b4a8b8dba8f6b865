//! The file of `patronus lab`: sites and their uplinks, what is bad about these, and when that changes.
//!
//! A link is an uplink, `SITE.UPLINK`, a->b being outwards; or what lies between two uplinks of two sites,
//! `SITE.UPLINK/SITE.UPLINK`, a being the one named first.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use patronus_impair::{Change, Direction, RawChange, RawStep, Schedule};
use serde::Deserialize;

use crate::topology::{SITES_MAX, SITES_MIN, UPLINKS_MAX};

/// A lab as a file describes it.
#[derive(Clone, Debug)]
pub struct LabFile {
    /// The seed, unless the command line has one.
    pub seed: Option<u64>,
    /// The sites.
    pub sites: Vec<SiteSpec>,
    /// What is bad from the begin, in the order of the file.
    pub impairments: Vec<LinkChange>,
    /// What changes later.
    pub schedule: Schedule,
    /// The links that the schedule names.
    pub scheduled: Vec<NamedLink>,
}

/// One site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteSpec {
    /// Its name.
    pub name: String,
    /// The names of its uplinks.
    pub uplinks: Vec<String>,
}

/// An uplink by the places of its site and of itself in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UplinkRef {
    /// Which site, from 0.
    pub site: usize,
    /// Which of its uplinks, from 0.
    pub uplink: usize,
}

/// A link by its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkRef {
    /// An uplink.
    Uplink(UplinkRef),
    /// What lies between two; the first is of the site that stands first in the file.
    Between(UplinkRef, UplinkRef),
}

/// A link and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLink {
    /// As reports and schedules have it.
    pub name: String,
    /// Its ends.
    pub link: LinkRef,
}

/// A change that holds from the begin.
#[derive(Clone, Debug)]
pub struct LinkChange {
    /// Of which link.
    pub link: LinkRef,
    /// In which directions.
    pub direction: Direction,
    /// What.
    pub change: Change,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    seed: Option<u64>,
    #[serde(default)]
    site: Vec<RawSite>,
    #[serde(default)]
    impair: Vec<RawImpair>,
    #[serde(default)]
    step: Vec<RawStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSite {
    name: String,
    uplinks: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawImpair {
    link: String,
    direction: Option<String>,
    set: RawChange,
}

impl LabFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A file that cannot be read, and what [`LabFile::parse`] says, with the file's name.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the lab's file {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Checks a file's text.
    ///
    /// # Errors
    /// The first fault: its field and what to write there.
    pub fn parse(text: &str) -> Result<Self> {
        let raw: RawFile = toml::from_str(text)?;
        let sites = check_sites(raw.site)?;
        let mut impairments = Vec::new();
        for (index, impair) in raw.impair.iter().enumerate() {
            let change = impair.check(&sites);
            impairments.push(change.with_context(|| format!("impair {}", index + 1))?);
        }
        let mut steps = raw.step;
        let mut scheduled: Vec<NamedLink> = Vec::new();
        for (index, step) in steps.iter_mut().enumerate() {
            let place = || format!("step {}", index + 1);
            let (link, is_reversed) = find(&sites, &step.link).with_context(place)?;
            if is_reversed {
                let direction = step.direction.as_deref().map(Direction::parse).transpose();
                let direction = direction.with_context(place)?.unwrap_or_default();
                step.direction = Some(direction.reversed().name().to_owned());
            }
            step.link = link.name(&sites);
            if scheduled.iter().all(|named| named.link != link) {
                scheduled.push(NamedLink {
                    name: step.link.clone(),
                    link,
                });
            }
        }
        let names: Vec<&str> = scheduled.iter().map(|named| named.name.as_str()).collect();
        Ok(Self {
            seed: raw.seed,
            schedule: Schedule::check(&steps, &names)?,
            sites,
            impairments,
            scheduled,
        })
    }

    /// How many uplinks each site has.
    pub fn uplinks(&self) -> Vec<u8> {
        self.sites
            .iter()
            .map(|site| site.uplinks.len() as u8)
            .collect()
    }

    /// All links there are: uplinks first, then what lies between those of different sites.
    pub fn links(&self) -> Vec<NamedLink> {
        let uplinks: Vec<UplinkRef> = self
            .sites
            .iter()
            .enumerate()
            .flat_map(|(site, spec)| {
                (0..spec.uplinks.len()).map(move |uplink| UplinkRef { site, uplink })
            })
            .collect();
        let pairs = uplinks.iter().flat_map(|a| {
            let others = uplinks.iter().filter(|b| b.site > a.site);
            others.map(|b| LinkRef::Between(*a, *b))
        });
        let links = uplinks.iter().map(|uplink| LinkRef::Uplink(*uplink));
        links
            .chain(pairs)
            .map(|link| NamedLink {
                name: link.name(&self.sites),
                link,
            })
            .collect()
    }
}

impl LinkRef {
    fn name(self, sites: &[SiteSpec]) -> String {
        let uplink = |at: UplinkRef| {
            let site = &sites[at.site];
            format!("{}.{}", site.name, site.uplinks[at.uplink])
        };
        match self {
            Self::Uplink(at) => uplink(at),
            Self::Between(a, b) => format!("{}/{}", uplink(a), uplink(b)),
        }
    }
}

impl RawImpair {
    fn check(&self, sites: &[SiteSpec]) -> Result<LinkChange> {
        let (link, is_reversed) = find(sites, &self.link)?;
        let direction = match &self.direction {
            Some(text) => Direction::parse(text)?,
            None => Direction::Both,
        };
        let change = self.set.check().map_err(|error| error.within("set"))?;
        Ok(LinkChange {
            link,
            direction: match is_reversed {
                true => direction.reversed(),
                false => direction,
            },
            change,
        })
    }
}

fn check_sites(raw: Vec<RawSite>) -> Result<Vec<SiteSpec>> {
    ensure!(
        (SITES_MIN..=SITES_MAX).contains(&raw.len()),
        "[[site]]: {} of them; a lab has {SITES_MIN} to {SITES_MAX}",
        raw.len()
    );
    let mut names = HashSet::new();
    for (index, site) in raw.iter().enumerate() {
        let place = format!("site {}", index + 1);
        check_name(&format!("{place} name"), &site.name)?;
        ensure!(
            names.insert(site.name.clone()),
            "{place} name = {:?}: another site has that name; give each its own",
            site.name
        );
        ensure!(
            (1..=usize::from(UPLINKS_MAX)).contains(&site.uplinks.len()),
            "{place} uplinks: {} of them; a site has 1 to {UPLINKS_MAX}, such as uplinks = [\"fiber\"]",
            site.uplinks.len()
        );
        let mut uplinks = HashSet::new();
        for uplink in &site.uplinks {
            check_name(&format!("{place} uplinks"), uplink)?;
            ensure!(
                uplinks.insert(uplink),
                "{place} uplinks: {uplink:?} stands there twice; give each its own name"
            );
        }
    }
    let sites = raw.into_iter().map(|site| SiteSpec {
        name: site.name,
        uplinks: site.uplinks,
    });
    Ok(sites.collect())
}

fn check_name(place: &str, name: &str) -> Result<()> {
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    ensure!(
        fits && name.bytes().all(is_right),
        "{place} = {name:?}: 1 to {NAME_BYTES_MAX} letters, digits and dashes"
    );
    Ok(())
}

/// The link of a name, and whether it is named from its other end.
fn find(sites: &[SiteSpec], name: &str) -> Result<(LinkRef, bool)> {
    let Some((a, b)) = name.split_once('/') else {
        return Ok((LinkRef::Uplink(find_uplink(sites, name, name)?), false));
    };
    let (a, b) = (find_uplink(sites, a, name)?, find_uplink(sites, b, name)?);
    match a.site.cmp(&b.site) {
        std::cmp::Ordering::Less => Ok((LinkRef::Between(a, b), false)),
        std::cmp::Ordering::Greater => Ok((LinkRef::Between(b, a), true)),
        std::cmp::Ordering::Equal => bail!(
            "link = {name:?}: both uplinks are of one site, between which nothing passes; name two sites"
        ),
    }
}

fn find_uplink(sites: &[SiteSpec], name: &str, link: &str) -> Result<UplinkRef> {
    let found = sites.iter().enumerate().find_map(|(site, spec)| {
        let rest = name.strip_prefix(spec.name.as_str())?.strip_prefix('.')?;
        let uplink = spec.uplinks.iter().position(|uplink| uplink == rest)?;
        Some(UplinkRef { site, uplink })
    });
    found.with_context(|| {
        let all = sites.iter().flat_map(|site| {
            let name = &site.name;
            site.uplinks.iter().map(move |uplink| format!("{name}.{uplink}"))
        });
        let all: Vec<String> = all.collect();
        format!(
            "link = {link:?}: there is no uplink {name:?}; the uplinks are {}, and what lies between two is A/B",
            all.join(", ")
        )
    })
}

const NAME_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use patronus_impair::{Heading, Impairment};

    use super::*;

    const SITES: &str = "[[site]]\nname = \"hq\"\nuplinks = [\"fiber\", \"lte\"]\n\
                         [[site]]\nname = \"branch\"\nuplinks = [\"dsl\"]\n";

    #[test]
    fn sites_links_and_the_seed_are_read() {
        let file = LabFile::parse(&format!("seed = 42\n{SITES}")).unwrap();
        assert_eq!(file.seed, Some(42));
        assert_eq!(file.uplinks(), [2, 1]);
        let names: Vec<String> = file.links().into_iter().map(|link| link.name).collect();
        assert_eq!(
            names,
            [
                "hq.fiber",
                "hq.lte",
                "branch.dsl",
                "hq.fiber/branch.dsl",
                "hq.lte/branch.dsl"
            ]
        );
        assert!(file.schedule.is_empty());
    }

    #[test]
    fn a_link_named_from_its_other_end_is_turned_round() {
        let text = format!(
            "{SITES}[[impair]]\nlink = \"branch.dsl/hq.lte\"\ndirection = \"a->b\"\nset = {{ delay_ms = 5 }}\n\
             [[step]]\nat_s = 1\nlink = \"branch.dsl/hq.lte\"\ndirection = \"a->b\"\nset = {{ blackhole = true }}\n"
        );
        let file = LabFile::parse(&text).unwrap();
        assert_eq!(file.impairments[0].direction, Direction::BToA);
        let name = "hq.lte/branch.dsl";
        assert_eq!(file.scheduled.len(), 1);
        assert_eq!(file.scheduled[0].name, name);
        let at = |heading| {
            let base = Impairment::default();
            file.schedule
                .impairment_at(Duration::from_secs(2), name, heading, base)
        };
        assert!(at(Heading::BToA).blackhole);
        assert!(!at(Heading::AToB).blackhole);
    }

    #[test]
    fn faults_name_the_field_and_the_fix() {
        let site =
            |name: &str, uplinks: &str| format!("[[site]]\nname = {name:?}\nuplinks = {uplinks}\n");
        let one = site("hq", "[\"fiber\"]");
        let cases = [
            (one.clone(), "[[site]]: 1 of them", "2 to 8"),
            (format!("{one}{one}"), "site 2 name", "give each its own"),
            (
                format!("{one}{}", site("b.c", "[\"x\"]")),
                "site 2 name",
                "letters, digits",
            ),
            (
                format!("{one}{}", site("b", "[]")),
                "site 2 uplinks",
                "1 to 8",
            ),
            (
                format!("{one}{}", site("b", "[\"x\", \"x\"]")),
                "site 2 uplinks",
                "twice",
            ),
            (
                format!("{one}{}", site("b", "[\"x y\"]")),
                "site 2 uplinks",
                "letters, digits",
            ),
            (
                format!("{SITES}[[impair]]\nlink = \"hq.dsl\"\nset = {{}}\n"),
                "impair 1: link = \"hq.dsl\"",
                "hq.fiber, hq.lte, branch.dsl",
            ),
            (
                format!("{SITES}[[impair]]\nlink = \"hq.lte/hq.fiber\"\nset = {{}}\n"),
                "impair 1: link",
                "name two sites",
            ),
            (
                format!("{SITES}[[impair]]\nlink = \"hq.lte\"\nset = {{ loss_percent = 101 }}\n"),
                "impair 1: set.loss_percent",
                "0 to 100",
            ),
            (
                format!("{SITES}[[impair]]\nlink = \"hq.lte\"\ndirection = \"out\"\nset = {{}}\n"),
                "impair 1: direction",
                "a->b",
            ),
            (
                format!("{SITES}[[step]]\nat_s = 1\nlink = \"x.y\"\nset = {{}}\n"),
                "step 1: link",
                "branch.dsl",
            ),
            (
                format!("{SITES}[[step]]\nat_s = -1\nlink = \"hq.lte\"\nset = {{}}\n"),
                "step 1.at_s",
                "from 0",
            ),
        ];
        for (text, field, fix) in cases {
            let error = format!("{:#}", LabFile::parse(&text).expect_err(&text));
            assert!(error.starts_with(field), "{text}: {error}");
            assert!(error.contains(fix), "{text}: {error}");
        }
        let unknown = format!("{SITES}[[impair]]\nlink = \"hq.lte\"\nset = {{ lose = 1 }}\n");
        let error = format!("{:#}", LabFile::parse(&unknown).expect_err("unknown"));
        assert!(error.contains("lose"), "{error}");
    }
}
