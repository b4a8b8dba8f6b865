//! What a gateway says about its paths, over its local API.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use patronus_api::{
    Client, ClientError, EventView, EventsQuery, PathCommand, PathCommandRequest, PathStateView,
    PathView, PeerPathsView, SOCKET_PATH,
};

use super::twin::{Pair, Twin, UPLINKS, uplink_name};
use crate::{Namespace, Stop};

/// Asks the gateway of one site of a [`Twin`].
#[derive(Clone, Debug)]
pub struct Watch {
    namespace: Namespace,
    /// 0 or 1: its place in [`Twin::sites`].
    site: usize,
    peer: String,
}

/// A class that went over to another path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// When, in nanoseconds since 1970, to the millisecond.
    pub at_ns: u64,
    /// The class.
    pub class: String,
    /// The number of the path that it left.
    pub from: u8,
    /// The number of the path that it uses.
    pub to: u8,
    /// Why, in one word of the API.
    pub cause: String,
}

impl Watch {
    /// A watch of the gateway of site 0 or 1.
    pub fn of(twin: &Twin, site: usize) -> Self {
        Self {
            namespace: twin.sites[site].gateway.clone(),
            site,
            peer: twin.sites[1 - site].name(),
        }
    }

    /// The paths to the other site, and where each class goes.
    ///
    /// # Errors
    /// A gateway that does not answer, or knows no such peer.
    pub fn paths(&self) -> Result<PeerPathsView> {
        let answer = self.ask(|client| client.paths(Some(&self.peer)))?;
        let found = answer.peers.into_iter().next();
        found.with_context(|| format!("{} knows no peer {}", self.label(), self.peer))
    }

    /// Events with a larger number than `since`, and the number to ask for next time.
    ///
    /// # Errors
    /// A gateway that does not answer, or has forgotten some of them.
    pub fn events(&self, since: u64) -> Result<(Vec<EventView>, u64)> {
        let query = EventsQuery {
            since: Some(since),
            ..EventsQuery::default()
        };
        let answer = self.ask(|client| client.events(&query))?;
        ensure!(
            answer.lost == 0 && (answer.dropped == 0 || answer.next < since),
            "{} forgot {} events and its workers could not tell {}: what it decided is not known whole",
            self.label(),
            answer.lost,
            answer.dropped
        );
        Ok((answer.events, answer.next))
    }

    /// Orders something of a path.
    ///
    /// # Errors
    /// A gateway that does not answer or refuses.
    pub fn order(&self, command: PathCommand, path: u8) -> Result<()> {
        self.command(command, Some(path), None)
    }

    /// Pins a class to a path.
    ///
    /// # Errors
    /// As for [`Watch::order`].
    pub fn pin(&self, class: &str, path: u8) -> Result<()> {
        self.command(PathCommand::Pin, Some(path), Some(class))
    }

    /// Undoes [`Watch::pin`].
    ///
    /// # Errors
    /// As for [`Watch::order`].
    pub fn unpin(&self, class: &str) -> Result<()> {
        self.command(PathCommand::Unpin, None, Some(class))
    }

    /// Has the bandwidth of a path measured; the figure is there a moment later.
    ///
    /// # Errors
    /// A gateway that does not answer or refuses.
    pub fn measure_bandwidth(&self, path: u8) -> Result<()> {
        let path = path.to_string();
        self.ask(|client| client.measure_bandwidth(&self.peer, &path))
            .map(drop)
    }

    fn command(&self, command: PathCommand, path: Option<u8>, class: Option<&str>) -> Result<()> {
        let request = PathCommandRequest {
            command,
            path: path.map(|path| path.to_string()),
            class: class.map(str::to_owned),
            dry_run: false,
        };
        let answer = self.ask(|client| client.path_command(&self.peer, &request))?;
        ensure!(answer.done, "{}: not done: {}", self.label(), answer.text);
        Ok(())
    }

    /// Times that the gateway's probers were late; `None` where it does not say.
    ///
    /// # Errors
    /// A gateway that does not answer.
    pub fn starved(&self) -> Result<Option<u64>> {
        Ok(self.paths()?.prober_starved)
    }

    /// The pair of uplinks that a path joins.
    ///
    /// # Errors
    /// A path of another lab.
    pub fn pair_of(&self, twin: &Twin, path: &PathView) -> Result<Pair> {
        let name = path.uplink.as_deref().unwrap_or_default();
        let local = UPLINKS.into_iter().find(|own| uplink_name(*own) == name);
        let remote = twin.sites[1 - self.site].uplink_of(path.remote.ip());
        match (local, remote, self.site) {
            (Some(one), Some(two), 0) | (Some(two), Some(one), _) => Ok(Pair { one, two }),
            _ => bail!(
                "{} has a path that is none of the lab's: {path:?}",
                self.label()
            ),
        }
    }

    /// The name in messages.
    pub fn label(&self) -> &str {
        self.namespace.label()
    }

    fn ask<T: Send>(
        &self,
        question: impl FnOnce(Client) -> Result<T, ClientError> + Send,
    ) -> Result<T> {
        self.namespace
            .run(|| question(Client::connect(Path::new(SOCKET_PATH))?))?
            .with_context(|| format!("asking {}", self.label()))
    }
}

/// The path that new packets of a class take; `None` while there is none.
pub fn path_of<'a>(paths: &'a PeerPathsView, class: &str) -> Option<&'a PathView> {
    let route = paths.routes.iter().find(|route| route.class == class)?;
    let number = route.path?;
    paths.paths.iter().find(|path| path.path == number)
}

/// The changes of path among events; a first path, and the loss of the last one, are none.
pub fn switches(events: &[EventView]) -> Vec<Switch> {
    let switches = events.iter().filter_map(|event| {
        let decision = event.decision.as_ref()?;
        let (from, to) = (decision.from?, decision.to?);
        (from != to).then(|| Switch {
            at_ns: event.unix_ms * 1_000_000,
            class: event.class.clone().unwrap_or_default(),
            from,
            to,
            cause: decision.cause.clone(),
        })
    });
    switches.collect()
}

/// Waits until both gateways send `class` over the same pair and every path that joins two uplinks is up at both ends; the
/// pair. With `wants_met`, that pair and another one must be within the class's bounds too.
///
/// # Errors
/// What is still amiss after `max`, or Ctrl-C.
pub fn settled(
    twin: &Twin,
    watches: &[Watch; 2],
    class: &str,
    wants_met: bool,
    max: Duration,
    stop: &Stop,
) -> Result<Pair> {
    let begun = Instant::now();
    loop {
        let amiss = match standing(twin, watches, class, wants_met) {
            Ok(Standing::Settled(pair)) => return Ok(pair),
            Ok(Standing::Amiss(what)) => what,
            Err(error) => format!("{error:#}"),
        };
        ensure!(
            begun.elapsed() < max,
            "the gateways did not settle within {max:?}: {amiss}"
        );
        stop.sleep(Duration::from_millis(50))?;
    }
}

enum Standing {
    Settled(Pair),
    Amiss(String),
}

fn standing(twin: &Twin, watches: &[Watch; 2], class: &str, wants_met: bool) -> Result<Standing> {
    let mut pairs = Vec::with_capacity(2);
    for watch in watches {
        let paths = watch.paths()?;
        let up = paths
            .paths
            .iter()
            .filter(|path| path.state == PathStateView::Up);
        let wanted = UPLINKS.len() * UPLINKS.len();
        if up.count() < wanted {
            let states = paths
                .paths
                .iter()
                .map(|path| format!("{} {}", path.name, path.text));
            let states: Vec<String> = states.collect();
            return Ok(Standing::Amiss(format!(
                "{} has not {wanted} paths up: {}",
                watch.label(),
                states.join("; ")
            )));
        }
        let in_use = path_of(&paths, class);
        let is_met = |path: &&PathView| {
            let mut standings = path.classes.iter();
            standings.any(|standing| standing.class == class && standing.tier == 0)
        };
        let are_met = paths.paths.iter().filter(is_met).count();
        if wants_met && (are_met < 2 || !in_use.is_none_or(|path| is_met(&path))) {
            return Ok(Standing::Amiss(format!(
                "{} finds the path of {class} or all others out of its bounds",
                watch.label()
            )));
        }
        match in_use {
            Some(path) => pairs.push(watch.pair_of(twin, path)?),
            None => {
                return Ok(Standing::Amiss(format!(
                    "{} has no path for {class}",
                    watch.label()
                )));
            }
        }
    }
    match pairs[..] {
        [one, two] if one == two => Ok(Standing::Settled(one)),
        _ => Ok(Standing::Amiss(format!(
            "{class} goes over {pairs:?}, not over one pair"
        ))),
    }
}
