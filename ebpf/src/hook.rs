//! Where a program is attached, and which place suits an interface.

use std::fmt;
use std::str::FromStr;

use crate::interface::{Interface, InterfaceError, LinkLayer};
use crate::support::Support;

/// Where a program looks at frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// In the driver, before the kernel allocates anything.
    XdpNative,
    /// XDP behind the driver. It copies, switches GRO off and sees trains without knowing; only by wish.
    XdpGeneric,
    /// Ingress of traffic control by link (Linux 6.6).
    Tcx,
    /// Ingress of traffic control by a filter on the `clsact` queueing discipline. It stays when the process is
    /// killed; the next attachment replaces it.
    Clsact,
}

/// A hook and why it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The hook.
    pub hook: Hook,
    /// The reason, for the operator: the driver, the MTU, the kernel.
    pub why: String,
}

/// A word that names no hook.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no hook: it is one of xdp, xdp-generic, tcx and clsact")]
pub struct UnknownHook(pub String);

impl Hook {
    /// All of them, the earliest first.
    pub const ALL: [Self; 4] = [Self::XdpNative, Self::XdpGeneric, Self::Tcx, Self::Clsact];

    /// The word for it in configuration and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// Whether what is attached there is gone when the process dies, however it dies.
    pub fn dies_with_the_process(self) -> bool {
        match self {
            Self::XdpNative | Self::XdpGeneric | Self::Tcx => true,
            Self::Clsact => false,
        }
    }

    /// The hook that suits `interface` on this kernel.
    ///
    /// # Errors
    /// Where there is no such interface, or its frames cannot be read.
    pub fn choose(interface: &str) -> Result<Choice, InterfaceError> {
        let interface = Interface::find(interface)?;
        Ok(choose(&interface, &Support::probe()))
    }
}

pub(crate) fn choose(interface: &Interface, support: &Support) -> Choice {
    let (tc, tc_name) = match support.has(Hook::Tcx) {
        Ok(()) => (Hook::Tcx, "tcx"),
        Err(_) => (Hook::Clsact, "clsact, for this kernel has no tcx"),
    };
    let no_xdp = why_not_native(interface, support);
    match no_xdp {
        None => Choice {
            hook: Hook::XdpNative,
            why: format!(
                "the driver {} runs XDP",
                interface.driver.as_deref().unwrap_or("of this interface")
            ),
        },
        Some(why) => Choice {
            hook: tc,
            why: format!("{why}: {tc_name}"),
        },
    }
}

/// Why native XDP does not suit, if it does not.
fn why_not_native(interface: &Interface, support: &Support) -> Option<String> {
    if let Err(why) = support.has(Hook::XdpNative) {
        return Some(why);
    }
    if interface.layer == LinkLayer::Ip {
        return Some("XDP needs Ethernet headers, and this interface has none".to_owned());
    }
    match interface.driver.as_deref() {
        // The peer must cut every train for a program that wants single frames.
        Some("veth") => {
            return Some("native XDP on a veth switches off GSO at its peer".to_owned());
        }
        Some(driver @ ("tun" | "bridge" | "bonding" | "802.1Q VLAN Support")) => {
            return Some(format!("a {driver} interface is no place for native XDP"));
        }
        Some(_) | None => {}
    }
    if interface.mtu > XDP_MTU_MAX && interface.driver.as_deref() == Some("virtio_net") {
        return Some(format!(
            "MTU {} is above {XDP_MTU_MAX}, and virtio_net would have to refuse",
            interface.mtu
        ));
    }
    match interface.xdp {
        Some(true) => None,
        Some(false) => Some(format!(
            "the driver {} has no native XDP",
            interface.driver.as_deref().unwrap_or("of this interface")
        )),
        None => Some("this kernel does not say whether the driver has native XDP".to_owned()),
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Hook {
    type Err = UnknownHook;

    fn from_str(word: &str) -> Result<Self, UnknownHook> {
        Self::ALL
            .into_iter()
            .find(|hook| hook.as_str() == word)
            .ok_or_else(|| UnknownHook(word.to_owned()))
    }
}

/// What fits one page with XDP's headroom and tail; programs of ours take larger frames in pieces, drivers not always.
const XDP_MTU_MAX: u32 = 3500;
