//! The uplinks as the kernel has them: which interface each one is, and whether it can carry anything.
//!
//! Netlink tells when something may have changed; what is the case is then asked for, so that a message that was lost
//! or came twice does no harm. A gateway with a lone uplink has nothing to watch.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use patronus_config::{Classes, InterfaceName, Name, Uplink, Uplinks};
use patronus_engine::PathOrder;
use patronus_io::{UplinkSet, Way};
use patronus_packet::UplinkId;
use patronus_path::StateReason;
use patronus_tunnel::WorkerId;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::AddressScope;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};

use crate::exchange::{Exchange, Order};
use crate::paths::{Carries, PathPlan, PlannedUplink};

/// The uplinks and their news.
pub struct UplinkWatch {
    uplinks: Vec<Watched>,
    netlink: Netlink,
    ways: Arc<[(UplinkId, Way)]>,
    /// Interfaces of which others want to hear.
    companions: Vec<String>,
}

struct Watched {
    id: UplinkId,
    uplink: Uplink,
    link: Option<LinkState>,
    /// Families that the interface ever had an address of. A lease that is lost for a moment takes no path away.
    seen: Carries,
    /// What workers were told last; `None` where they were told nothing.
    told: Option<Option<StateReason>>,
}

/// An interface that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LinkState {
    index: u32,
    is_up: bool,
    has_carrier: bool,
    /// Whether it has addresses that reach beyond the link.
    has: Carries,
}

/// What a look at the kernel brought.
#[derive(Debug, Default)]
pub struct News {
    /// For every worker, in this order.
    orders: Vec<PlainOrder>,
    /// Whether paths came or went, so that the workers need a new configuration.
    pub plan_changed: bool,
}

/// The orders that can be given many times.
#[derive(Clone, Debug)]
enum PlainOrder {
    Uplinks(Arc<[(UplinkId, Way)]>),
    Path(PathOrder),
}

type Messages = futures_util::stream::Fuse<
    futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
>;

struct Netlink {
    handle: Handle,
    messages: Messages,
    _connection: tokio::task::JoinHandle<()>,
}

impl UplinkWatch {
    /// Watches these uplinks. To be called inside a tokio runtime; follow it with a [`look`](Self::look).
    ///
    /// # Errors
    /// When there is no netlink.
    pub fn new(uplinks: &Uplinks) -> std::io::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
        let mut watch = Self {
            uplinks: Vec::new(),
            netlink: Netlink {
                handle,
                messages: messages.map(|(message, _)| message).boxed().fuse(),
                _connection: tokio::spawn(connection),
            },
            ways: Arc::default(),
            companions: Vec::new(),
        };
        watch.configure(uplinks);
        Ok(watch)
    }

    /// Takes another set of uplinks. One that keeps its name keeps its number, one that keeps its interface too keeps
    /// what is known of it.
    pub fn configure(&mut self, uplinks: &Uplinks) {
        if let Some(lone) = uplinks.lone() {
            self.uplinks = vec![Watched::new(UplinkId::ANY, lone)];
            return;
        }
        let mut known: HashMap<Name, Watched> = self
            .uplinks
            .drain(..)
            .filter(|watched| watched.id != UplinkId::ANY)
            .map(|watched| (watched.uplink.name.clone(), watched))
            .collect();
        known.retain(|name, _| uplinks.iter().any(|uplink| uplink.name == *name));
        let taken: Vec<UplinkId> = known.values().map(|watched| watched.id).collect();
        let numbers = (0..UplinkId::COUNT_MAX as u8).map(UplinkId);
        let mut free = numbers.filter(|id| !taken.contains(id));
        for uplink in uplinks.iter() {
            let watched = match known.remove(&uplink.name) {
                Some(old) if old.uplink.interface == uplink.interface => Watched {
                    uplink: uplink.clone(),
                    ..old
                },
                Some(old) => Watched::new(old.id, uplink),
                // The configuration has as many uplinks as there are numbers at most.
                None => Watched::new(free.next().unwrap_or(UplinkId::ANY), uplink),
            };
            self.uplinks.push(watched);
        }
    }

    /// What paths there can be.
    pub fn plan(&self, classes: &Classes) -> PathPlan {
        let planned = self.uplinks.iter().map(|watched| PlannedUplink {
            id: watched.id,
            uplink: watched.uplink.clone(),
            carries: watched.carries(),
        });
        PathPlan::new(planned.collect(), classes)
    }

    /// The interface of each uplink.
    pub fn ways(&self) -> Arc<[(UplinkId, Way)]> {
        self.ways.clone()
    }

    /// Who asks the kernel about interfaces and routes.
    pub fn handle(&self) -> &Handle {
        &self.netlink.handle
    }

    /// Has [`changed`](Self::changed) tell of these interfaces too, in the place of those told before.
    pub fn accompany(&mut self, interfaces: Vec<String>) {
        self.companions = interfaces;
    }

    /// Waits until something about one of the interfaces may have changed.
    pub async fn changed(&mut self) {
        loop {
            let Some(message) = self.netlink.messages.next().await else {
                // The connection has ended; the look from time to time goes on.
                return std::future::pending().await;
            };
            if self.concerns(&message.payload) {
                return;
            }
        }
    }

    fn concerns(&self, payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
        let NetlinkPayload::InnerMessage(message) = payload else {
            return true;
        };
        let watches = |index: u32| {
            let mut links = self.uplinks.iter().filter_map(|watched| watched.link);
            links.any(|link| link.index == index)
        };
        match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                watches(link.header.index)
                    || self.companions.iter().any(|name| is_named(link, name))
                    || self.uplinks.iter().any(|watched| {
                        watched
                            .interface()
                            .is_some_and(|name| is_named(link, name.as_str()))
                    })
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                watches(address.header.index)
            }
            _ => false,
        }
    }

    /// Asks the kernel how each uplink is, and finds what workers have to be told.
    pub async fn look(&mut self) -> News {
        let mut news = News::default();
        for watched in &mut self.uplinks {
            let Some(name) = watched.interface() else {
                continue;
            };
            let link = match self.netlink.link_state(name.as_str()).await {
                Ok(link) => link,
                Err(error) => {
                    tracing::warn!(interface = name.as_str(), %error, "cannot ask how an uplink is");
                    continue;
                }
            };
            news.plan_changed |= watched.take(link);
        }
        let ways = self.uplinks.iter().filter_map(Watched::way);
        let ways: Arc<[(UplinkId, Way)]> = ways.collect();
        if ways != self.ways {
            self.ways = ways;
            news.orders.push(PlainOrder::Uplinks(self.ways.clone()));
        }
        for watched in &mut self.uplinks {
            news.orders.extend(watched.tell().map(PlainOrder::Path));
        }
        news
    }

    /// Workers could not send by these uplinks. Those that look well are to be tried again.
    pub fn retry(&self, refused: UplinkSet) -> News {
        let well = self
            .uplinks
            .iter()
            .filter(|watched| refused.contains(watched.id) && watched.fault().is_none());
        News {
            orders: well
                .map(|watched| PlainOrder::Path(PathOrder::Uplink(watched.id.0, None)))
                .collect(),
            plan_changed: false,
        }
    }
}

impl News {
    /// Which uplinks work again, and which do not and why.
    pub fn faults(&self) -> impl Iterator<Item = (UplinkId, Option<StateReason>)> {
        self.orders.iter().filter_map(|order| match order {
            PlainOrder::Path(PathOrder::Uplink(uplink, fault)) => Some((UplinkId(*uplink), *fault)),
            PlainOrder::Path(_) | PlainOrder::Uplinks(_) => None,
        })
    }

    /// Tells every worker.
    pub fn tell(&self, exchange: &Exchange) {
        for order in &self.orders {
            for at in 0..exchange.mailboxes().len() {
                let order = match order {
                    PlainOrder::Uplinks(ways) => Order::Uplinks(ways.clone()),
                    PlainOrder::Path(order) => Order::Path(order.clone()),
                };
                exchange.order(WorkerId(at as u8), order);
            }
        }
    }
}

impl Watched {
    fn new(id: UplinkId, uplink: &Uplink) -> Self {
        Self {
            id,
            uplink: uplink.clone(),
            link: None,
            seen: Carries {
                v4: false,
                v6: false,
            },
            told: None,
        }
    }

    /// The interface to watch; a lone uplink's sockets are bound to its own, or to none.
    fn interface(&self) -> Option<&InterfaceName> {
        let interface = self.uplink.interface.as_ref();
        interface.filter(|_| self.id != UplinkId::ANY)
    }

    /// Takes what the kernel says. `true` where that changes which paths there are.
    fn take(&mut self, link: Option<LinkState>) -> bool {
        let before = self.carries();
        self.link = link;
        if let Some(link) = link {
            self.seen.v4 |= link.has.v4;
            self.seen.v6 |= link.has.v6;
        }
        self.carries() != before
    }

    /// Before its first address it may get one of either family.
    fn carries(&self) -> Carries {
        match self.seen {
            Carries {
                v4: false,
                v6: false,
            } => Carries::ALL,
            seen => seen,
        }
    }

    fn fault(&self) -> Option<StateReason> {
        self.interface()?;
        match self.link {
            None | Some(LinkState { is_up: false, .. }) => Some(StateReason::UplinkDown),
            Some(LinkState {
                has_carrier: false, ..
            }) => Some(StateReason::CarrierLost),
            Some(link) => (!link.has.v4 && !link.has.v6).then_some(StateReason::UplinkDown),
        }
    }

    fn way(&self) -> Option<(UplinkId, Way)> {
        self.interface()?;
        let way = self
            .link
            .map_or(Way::Missing, |link| Way::Interface(link.index));
        Some((self.id, way))
    }

    /// The order that tells of a change, and a line in the log.
    fn tell(&mut self) -> Option<PathOrder> {
        let interface = self.interface()?.as_str();
        let fault = self.fault();
        if self.told == Some(fault) {
            return None;
        }
        let uplink = self.uplink.name.as_str();
        match (fault, self.link) {
            (None, _) => tracing::info!(uplink, interface, "uplink works"),
            (Some(_), None) => tracing::warn!(
                uplink,
                interface,
                "uplink has no interface: it is used as soon as that appears"
            ),
            (Some(StateReason::CarrierLost), _) => {
                tracing::warn!(uplink, interface, "uplink has no carrier")
            }
            (Some(_), Some(LinkState { is_up: false, .. })) => {
                tracing::warn!(uplink, interface, "uplink is switched off")
            }
            (Some(_), Some(_)) => tracing::warn!(uplink, interface, "uplink has no address"),
        }
        // Told of a healthy one too: its number may have been another's before, with a fault.
        self.told = Some(fault);
        Some(PathOrder::Uplink(self.id.0, fault))
    }
}

impl Netlink {
    /// The interface of that name; `None` where there is none.
    async fn link_state(&self, name: &str) -> Result<Option<LinkState>, rtnetlink::Error> {
        let request = self.handle.link().get().match_name(name.to_owned());
        let link = match request.execute().try_next().await {
            Ok(Some(link)) => link,
            Ok(None) => return Ok(None),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.code.is_some_and(|code| -code.get() == ENODEV) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut state = LinkState {
            index: link.header.index,
            is_up: link.header.flags.contains(LinkFlags::Up),
            has_carrier: link.header.flags.contains(LinkFlags::LowerUp),
            has: Carries {
                v4: false,
                v6: false,
            },
        };
        let request = self.handle.address().get();
        let mut addresses = request.set_link_index_filter(state.index).execute();
        while let Some(address) = addresses.try_next().await? {
            if address.header.scope != AddressScope::Universe {
                continue;
            }
            match address.header.family {
                AddressFamily::Inet => state.has.v4 = true,
                AddressFamily::Inet6 => state.has.v6 = true,
                _ => {}
            }
        }
        Ok(Some(state))
    }
}

fn is_named(link: &LinkMessage, name: &str) -> bool {
    let mut attributes = link.attributes.iter();
    attributes.any(|attribute| matches!(attribute, LinkAttribute::IfName(is) if is == name))
}

/// No such interface.
const ENODEV: i32 = 19;

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use patronus_config::Config;

    const LTE: UplinkId = UplinkId(1);

    fn uplinks(interfaces: &[(&str, &str)]) -> Uplinks {
        let mut text = "[site]\nname = \"hq\"\nprivate_key_file = \"key\"\n".to_owned();
        for (name, interface) in interfaces {
            text += &format!("[[uplink]]\nname = \"{name}\"\ninterface = \"{interface}\"\n");
        }
        let key = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n".to_owned();
        let draft = Config::parse(&text, "test").unwrap();
        draft.resolve(|_| Ok(key.clone().into())).unwrap().uplinks
    }

    fn ip(args: &str) {
        let status = Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(status.success(), "ip {args}");
    }

    /// Runs `body` in a network namespace and a runtime of its own; says so and passes where that is not permitted.
    fn in_netns<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
        let inside = std::thread::spawn(move || {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                let required = std::env::var_os("PATRONUS_REQUIRE_ROOT_TESTS");
                assert!(
                    required.is_none_or(|value| value != "1"),
                    "may not be skipped"
                );
                println!("skipped: no network namespace");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(body());
        });
        if let Err(panic) = inside.join() {
            std::panic::resume_unwind(panic);
        }
    }

    /// What workers are told after the next change, and whether paths came or went.
    async fn next_faults(watch: &mut UplinkWatch) -> (Vec<(u8, Option<StateReason>)>, bool) {
        let mut plan_changed = false;
        loop {
            let waited = tokio::time::timeout(Duration::from_secs(20), watch.changed()).await;
            assert!(waited.is_ok(), "no message came");
            let news = watch.look().await;
            plan_changed |= news.plan_changed;
            let faults = faults(&news);
            if !faults.is_empty() {
                return (faults, plan_changed);
            }
        }
    }

    fn faults(news: &News) -> Vec<(u8, Option<StateReason>)> {
        let orders = news.orders.iter().filter_map(|order| match order {
            PlainOrder::Path(PathOrder::Uplink(uplink, fault)) => Some((*uplink, *fault)),
            PlainOrder::Path(_) | PlainOrder::Uplinks(_) => None,
        });
        orders.collect()
    }

    fn way(watch: &UplinkWatch, uplink: UplinkId) -> Way {
        let ways = watch.ways();
        let found = ways.iter().find(|(id, _)| *id == uplink);
        found.map(|(_, way)| *way).unwrap()
    }

    #[test]
    fn carrier_address_state_and_existence_of_an_interface_reach_the_workers() {
        in_netns(|| async {
            let config = uplinks(&[("fiber", "lo"), ("lte", "wwan0")]);
            ip("link set lo up");
            ip("addr add 10.0.0.1/32 dev lo");
            let mut watch = UplinkWatch::new(&config).unwrap();
            let news = watch.look().await;
            let told = [(0, None), (1, Some(StateReason::UplinkDown))];
            assert_eq!(faults(&news), told);
            assert_eq!(way(&watch, UplinkId(0)), Way::Interface(1));
            assert_eq!(way(&watch, LTE), Way::Missing);
            let classes = Classes::default();
            let v6 = ["[2001:db8::1]:1".parse().unwrap()].map(|remote| (remote, 0));
            let paths = watch.plan(&classes).specs(&v6);
            assert_eq!(
                paths.len(),
                1,
                "fiber has no IPv6, lte may get it: {paths:?}"
            );

            // Its addresses, its carrier and its state, each by itself.
            ip("link add wwan0 type veth peer name tower");
            ip("link set wwan0 up");
            ip("addr add 10.1.0.1/24 dev wwan0");
            ip("link set tower up");
            let mut last = None;
            while last != Some(None) {
                let (faults, plan_changed) = next_faults(&mut watch).await;
                last = faults.last().map(|(_, fault)| *fault);
                if last == Some(None) {
                    assert!(plan_changed, "no path of IPv6 any more");
                }
            }
            let Way::Interface(index) = way(&watch, LTE) else {
                panic!("no interface");
            };
            assert!(watch.plan(&classes).specs(&v6).is_empty());
            for (change, fault) in [
                ("link set tower down", Some(StateReason::CarrierLost)),
                ("link set tower up", None),
                (
                    "addr del 10.1.0.1/24 dev wwan0",
                    Some(StateReason::UplinkDown),
                ),
                ("addr add 10.1.0.2/24 dev wwan0", None),
                ("link set wwan0 down", Some(StateReason::UplinkDown)),
                ("link set wwan0 up", None),
            ] {
                ip(change);
                let (faults, plan_changed) = next_faults(&mut watch).await;
                assert_eq!(faults, [(1, fault)], "{change}");
                assert!(!plan_changed, "{change}");
            }

            ip("link del wwan0");
            let (faults, _) = next_faults(&mut watch).await;
            assert_eq!(faults, [(1, Some(StateReason::UplinkDown))]);
            assert_eq!(way(&watch, LTE), Way::Missing);
            ip("link add wwan0 type veth peer name tower");
            ip("link set tower up");
            ip("link set wwan0 up");
            ip("addr add 10.1.0.1/24 dev wwan0");
            while next_faults(&mut watch).await.0 != [(1, None)] {}
            assert!(matches!(way(&watch, LTE), Way::Interface(other) if other != index));

            let mut refused = UplinkSet::default();
            refused.insert(LTE);
            assert_eq!(faults_of_retry(&watch, refused), [(1, None)]);
            ip("link set wwan0 down");
            next_faults(&mut watch).await;
            assert_eq!(faults_of_retry(&watch, refused), []);
        });
    }

    fn faults_of_retry(watch: &UplinkWatch, refused: UplinkSet) -> Vec<(u8, Option<StateReason>)> {
        faults(&watch.retry(refused))
    }

    #[test]
    fn an_uplink_keeps_its_number_as_long_as_its_name() {
        in_netns(|| async {
            let ids = |watch: &UplinkWatch| -> Vec<(String, u8)> {
                let uplinks = watch.uplinks.iter();
                uplinks
                    .map(|watched| (watched.uplink.name.to_string(), watched.id.0))
                    .collect()
            };
            let owned = |list: &[(&str, u8)]| -> Vec<(String, u8)> {
                list.iter()
                    .map(|(name, id)| ((*name).to_owned(), *id))
                    .collect()
            };
            let mut watch =
                UplinkWatch::new(&uplinks(&[("a", "e0"), ("b", "e1"), ("c", "e2")])).unwrap();
            watch.look().await;
            watch.configure(&uplinks(&[("d", "e3"), ("c", "e2"), ("a", "e9")]));
            assert_eq!(ids(&watch), owned(&[("d", 1), ("c", 2), ("a", 0)]));
            assert!(watch.uplinks[1].told.is_some(), "c is known already");
            assert!(watch.uplinks[2].told.is_none(), "a is another interface");
            watch.configure(&uplinks(&[("c", "e2")]));
            assert_eq!(ids(&watch), owned(&[("c", UplinkId::ANY.0)]));
            let news = watch.look().await;
            assert_eq!(faults(&news), []);
            assert!(watch.ways().is_empty());
        });
    }
}
