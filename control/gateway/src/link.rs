//! The tunnel interface as the kernel sees it: addresses, MTU, queue length and routes, through rtnetlink.
//!
//! Everything hangs on the interface, and the interface on the TUN's file descriptor: when the process ends,
//! however it ends, the kernel takes all of it away.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use patronus_packet::Prefix;
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

/// Packets that the kernel keeps for a slow reader, superpackets counted once. The default of 500 drops the
/// bursts of many senders.
const TX_QUEUE_LEN: u32 = 1000;

/// The interface and what we put on it.
pub struct Link {
    name: String,
    index: u32,
    handle: Handle,
    mtu: Option<u32>,
    addresses: BTreeSet<Prefix>,
    routes: BTreeSet<(u32, Prefix)>,
    _connection: tokio::task::JoinHandle<()>,
}

/// Why the kernel refused a change.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    /// A change was refused.
    #[error("cannot {what} on {interface}: {why}{fix}")]
    Refused {
        /// What was tried.
        what: String,
        /// On which interface.
        interface: String,
        /// The kernel's words.
        why: String,
        /// What the operator can do, with its separator.
        fix: String,
    },
}

impl Link {
    /// Takes charge of an interface that exists. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// When there is no netlink.
    pub fn new(name: &str, index: u32) -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
        Ok(Self {
            name: name.to_owned(),
            index,
            handle,
            mtu: None,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            _connection: tokio::spawn(connection),
        })
    }

    /// Sets MTU and queue length, and brings the interface up; nothing where it has this MTU from us already.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn bring_up(&mut self, mtu: u32) -> Result<(), LinkError> {
        if self.mtu == Some(mtu) {
            return Ok(());
        }
        self.forgo_link_local().await;
        let message = LinkUnspec::new_with_index(self.index)
            .mtu(mtu)
            .txqueuelen(TX_QUEUE_LEN)
            // As WireGuard's own interfaces: nobody in the tunnel listens to neighbour or group chatter.
            .multicast(false)
            .up()
            .build();
        let done = self.handle.link().set(message).execute().await;
        done.map_err(|why| {
            self.refused(format!("set MTU {mtu} and bring the link up"), &why, None)
        })?;
        self.mtu = Some(mtu);
        Ok(())
    }

    /// Keeps the kernel from giving the interface a link-local address of its own making and from asking for
    /// routers through it, as WireGuard's own interfaces do: nobody in the tunnel would answer.
    async fn forgo_link_local(&self) {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = LinkUnspec::new_with_index(self.index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode]))
            .build();
        if let Err(why) = self.handle.link().set(message).execute().await {
            // No IPv6 in this kernel: then there is nothing to forgo.
            tracing::debug!(interface = self.name, %why, "link-local addresses stay on");
        }
    }

    /// Makes `wanted` the addresses that we put on the interface.
    ///
    /// # Errors
    /// The first refusal; what was changed before stays changed and is remembered.
    pub async fn set_addresses(
        &mut self,
        wanted: impl IntoIterator<Item = Prefix>,
    ) -> Result<(), LinkError> {
        let wanted: BTreeSet<Prefix> = wanted.into_iter().collect();
        for gone in self.addresses.clone().difference(&wanted) {
            self.delete_address(*gone).await?;
            self.addresses.remove(gone);
        }
        for new in &wanted {
            if self.addresses.contains(new) {
                continue;
            }
            let request = self
                .handle
                .address()
                .add(self.index, new.addr(), new.prefix_len());
            request.execute().await.map_err(|why| {
                let fix = (errno_of(&why) == Some(EACCES) && new.addr().is_ipv6()).then(|| {
                    "; IPv6 is switched off: `sysctl -w net.ipv6.conf.all.disable_ipv6=0 \
                         net.ipv6.conf.default.disable_ipv6=0`"
                        .to_owned()
                });
                self.refused(format!("add address {new}"), &why, fix)
            })?;
            self.addresses.insert(*new);
        }
        Ok(())
    }

    /// Makes `wanted`, pairs of table and prefix, the routes that lead into the interface.
    ///
    /// # Errors
    /// The first refusal; what was changed before stays changed and is remembered.
    pub async fn set_routes(
        &mut self,
        wanted: impl IntoIterator<Item = (u32, Prefix)>,
    ) -> Result<(), LinkError> {
        let wanted: BTreeSet<(u32, Prefix)> = wanted.into_iter().collect();
        for gone in self.routes.clone().difference(&wanted) {
            let removed = self.handle.route().del(self.route(*gone)).execute().await;
            match removed {
                Err(why) if errno_of(&why) != Some(ESRCH) => {
                    return Err(self.refused(format!("remove route {}", gone.1), &why, None));
                }
                Ok(()) | Err(_) => self.routes.remove(gone),
            };
        }
        for new in &wanted {
            if self.routes.contains(new) {
                continue;
            }
            let fix = format!("; see who owns it with `ip route show {}`", new.1);
            let request = self.handle.route().add(self.route(*new));
            request
                .execute()
                .await
                .map_err(|why| self.refused(format!("add route {}", new.1), &why, Some(fix)))?;
            self.routes.insert(*new);
        }
        Ok(())
    }

    async fn delete_address(&self, gone: Prefix) -> Result<(), LinkError> {
        let mut present = self
            .handle
            .address()
            .get()
            .set_link_index_filter(self.index)
            .set_address_filter(gone.addr())
            .set_prefix_length_filter(gone.prefix_len())
            .execute();
        let refused =
            |why: &rtnetlink::Error| self.refused(format!("remove address {gone}"), why, None);
        while let Some(message) = present.try_next().await.map_err(|why| refused(&why))? {
            let removed = self.handle.address().del(message).execute().await;
            removed.map_err(|why| refused(&why))?;
        }
        Ok(())
    }

    fn route(&self, (table, prefix): (u32, Prefix)) -> RouteMessage {
        let len = prefix.prefix_len();
        match prefix.addr() {
            IpAddr::V4(addr) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(addr, len)
                .output_interface(self.index)
                .scope(RouteScope::Link)
                .table_id(table)
                .build(),
            IpAddr::V6(addr) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(addr, len)
                .output_interface(self.index)
                .table_id(table)
                .build(),
        }
    }

    fn refused(&self, what: String, why: &rtnetlink::Error, fix: Option<String>) -> LinkError {
        let reason = match errno_of(why) {
            Some(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
            None => why.to_string(),
        };
        LinkError::Refused {
            what,
            interface: self.name.clone(),
            why: reason,
            fix: fix.unwrap_or_default(),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({} #{})", self.name, self.index)
    }
}

fn errno_of(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// No such route.
const ESRCH: i32 = 3;
/// What an IPv6 address gets where the family is switched off.
const EACCES: i32 = 13;
