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

    /// The hook that suits `interface` on this kernel, whether or not this process may use it.
    ///
    /// # Errors
    /// Where there is no such interface, or its frames cannot be read.
    pub fn choose(interface: &str) -> Result<Choice, InterfaceError> {
        let interface = Interface::find(interface)?;
        Ok(choose(&interface, &Support::probe()))
    }
}

pub(crate) fn choose(interface: &Interface, support: &Support) -> Choice {
    let (tc, tc_name) = match support.kernel_has(Hook::Tcx) {
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
    if let Err(why) = support.kernel_has(Hook::XdpNative) {
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
    let driver = interface.driver.as_deref().unwrap_or("of this interface");
    match interface.xdp {
        None => Some("this kernel does not say whether the driver has native XDP".to_owned()),
        Some(features) if !features.native => {
            Some(format!("the driver {driver} has no native XDP"))
        }
        Some(features) if interface.mtu > XDP_MTU_MAX && !features.pieces => Some(format!(
            "MTU {} is above {XDP_MTU_MAX}, which the driver {driver} cannot give to XDP",
            interface.mtu
        )),
        Some(_) => None,
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

/// What fits one page beside XDP's headroom and tail. Our programs take larger frames in pieces, drivers not always.
const XDP_MTU_MAX: u32 = 3500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::XdpFeatures;

    fn interface(driver: &str, mtu: u32, xdp: Option<XdpFeatures>) -> Interface {
        Interface {
            name: "wan0".to_owned(),
            index: 7,
            mtu,
            layer: LinkLayer::Ethernet,
            driver: Some(driver.to_owned()),
            xdp,
        }
    }

    fn support(major: u16, minor: u16) -> Support {
        Support {
            kernel: Some((major, minor)),
            missing: Vec::new(),
            map_refused: None,
            has_kernel_btf: true,
        }
    }

    const WHOLE: Option<XdpFeatures> = Some(XdpFeatures {
        native: true,
        pieces: true,
    });
    const SMALL: Option<XdpFeatures> = Some(XdpFeatures {
        native: true,
        pieces: false,
    });
    const NONE: Option<XdpFeatures> = Some(XdpFeatures {
        native: false,
        pieces: false,
    });

    #[test]
    fn the_hook_follows_driver_mtu_and_kernel() {
        let cases = [
            (
                interface("ixgbe", 1500, WHOLE),
                support(6, 12),
                Hook::XdpNative,
                "ixgbe runs XDP",
            ),
            (
                interface("ixgbe", 9000, WHOLE),
                support(6, 12),
                Hook::XdpNative,
                "ixgbe runs XDP",
            ),
            (
                interface("r8169", 1500, NONE),
                support(6, 12),
                Hook::Tcx,
                "r8169 has no native XDP",
            ),
            (
                interface("e1000e", 9000, SMALL),
                support(6, 12),
                Hook::Tcx,
                "MTU 9000",
            ),
            (
                interface("veth", 1500, WHOLE),
                support(6, 12),
                Hook::Tcx,
                "GSO",
            ),
            (
                interface("veth", 1500, WHOLE),
                support(6, 1),
                Hook::Clsact,
                "no tcx",
            ),
            (
                interface("ixgbe", 1500, None),
                support(6, 1),
                Hook::Clsact,
                "does not say",
            ),
            (
                interface("ixgbe", 1500, WHOLE),
                support(5, 15),
                Hook::Clsact,
                "5.18",
            ),
        ];
        for (interface, support, hook, why) in cases {
            let choice = choose(&interface, &support);
            assert_eq!(choice.hook, hook, "{interface:?}: {}", choice.why);
            assert!(choice.why.contains(why), "{}", choice.why);
        }
    }

    #[test]
    fn an_interface_without_link_header_gets_traffic_control() {
        let mut ppp = interface("ppp", 1492, WHOLE);
        ppp.layer = LinkLayer::Ip;
        let choice = choose(&ppp, &support(6, 12));
        assert_eq!(choice.hook, Hook::Tcx);
        assert!(choice.why.contains("Ethernet"), "{}", choice.why);
    }

    #[test]
    fn hooks_are_read_by_their_words() {
        for hook in Hook::ALL {
            assert_eq!(hook.as_str().parse(), Ok(hook));
        }
        let error = "xdpp".parse::<Hook>().unwrap_err().to_string();
        assert!(
            error.contains("xdp, xdp-generic, tcx and clsact"),
            "{error}"
        );
    }
}
