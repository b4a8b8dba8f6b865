//! How another shell gets into a lab's namespaces, which have no names.

use crate::{Gateway, Site};

/// Whether the lab is root of the machine, or of a user namespace of its own that others must enter first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsRoot(pub bool);

/// The command that runs `command` in the host of a site.
pub fn in_host(site: &Site, IsRoot(is_root): IsRoot, command: &str) -> String {
    // Another shell of an unprivileged user has to become root of our user namespace first.
    let user = match is_root {
        true => String::new(),
        false => format!("-t {} -U --preserve-credentials ", std::process::id()),
    };
    format!("nsenter {user}--net={} {command}", site.host.path())
}

/// The command that runs `command` beside a gateway.
pub fn in_gateway(gateway: &Gateway, IsRoot(is_root): IsRoot, command: &str) -> String {
    let user = match is_root {
        true => "",
        false => "-U --preserve-credentials ",
    };
    format!("nsenter -t {} {user}-n -m {command}", gateway.pid())
}
