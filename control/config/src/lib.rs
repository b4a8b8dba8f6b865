//! Configuration: text in, checked values or a full list of what is wrong out.
//!
//! Owns the TOML format of `patronus.toml`, the text forms of WireGuard keys and the wg-quick
//! importer. Knows neither sockets nor interfaces nor time. Everything is pure but [`load()`] and
//! [`check()`], which read the configuration file and the key files that it names, and [`manifests`], which
//! reads the folder of policies as bytes.
//!
//! Text becomes values in three steps, each a type of its own: TOML of the right shape (`raw`), then
//! [`Draft`], whose values make sense together but whose secrets are paths, then [`Config`].

mod api;
pub mod changes;
mod check;
pub mod classes;
pub mod defaults;
pub mod diagnostic;
mod draft;
pub mod endpoint;
pub mod keys;
pub mod load;
pub mod manifests;
pub mod model;
pub mod outline;
pub mod peers;
pub mod prefilter;
mod raw;
mod schema;
mod suggest;
pub mod summary;
pub mod uplinks;
pub mod via;
pub mod wg_quick;

pub use changes::{Change, at_next_start, changes};
pub use classes::{Class, Classes, PodMatch, Ports};
pub use diagnostic::{ConfigErrors, Diagnostic};
pub use draft::{Draft, RESERVED_TABLES};
pub use endpoint::{CostedEndpoint, HostName, PeerEndpoint};
pub use keys::{KeyText, KeyTextError};
pub use load::{check, load, load_text};
pub use model::{
    ApiListen, ApiSettings, CipherCode, Config, CoreList, Dataplane, FirewallMark, FlowSlots,
    InterfaceName, Keepalive, LoopbackAddr, LoopbackError, Mtu, Name, OffloadLimit, Pinning,
    PolicyDir, PolicySettings, RefusalMode, RouteTable, Site, SocketBuffer, SpinTime,
    StateSettings, WorkerCount,
};
pub use outline::{Outline, OutlineUplink};
pub use peers::{Peer, PeerSet};
pub use prefilter::{InitiationLimit, LanHook, PrefilterSettings, WanHook};
pub use summary::Summary;
pub use uplinks::{Probing, Rate, Uplink, UplinkIo, Uplinks};
pub use via::{Via, WhenUnreachable};
