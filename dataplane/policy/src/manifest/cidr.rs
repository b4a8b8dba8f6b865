//! Address blocks and addresses.

use std::net::IpAddr;

use patronus_packet::Prefix;

use crate::diagnostic::{Path, Report, quote};

/// Reads a block, with its host bits masked.
pub(super) fn read(text: &str, line: u32, path: &Path<'_>, report: &mut Report) -> Option<Prefix> {
    match parse(text) {
        Ok(prefix) if prefix == prefix.network() => Some(prefix),
        Ok(prefix) => {
            let network = prefix.network();
            let message =
                format!("`{prefix}` has host bits set and is read as {network}: write {network}");
            report.warn(line, path, message);
            Some(network)
        }
        Err(message) => {
            report.error(line, path, message);
            None
        }
    }
}

fn parse(text: &str) -> Result<Prefix, String> {
    let shown = quote(text);
    let Some((addr, len)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(addr) => format!("`{shown}` has no mask: write {}", Prefix::host(addr)),
            Err(_) => {
                format!("`{shown}` is no address block: write it like 10.1.0.0/16 or 2001:db8::/32")
            }
        });
    };
    let addr = address(addr).map_err(|message| format!("`{shown}`: {message}"))?;
    let digits_fit = len == "0"
        || (!len.starts_with('0')
            && len.len() <= 3
            && len.bytes().all(|byte| byte.is_ascii_digit()));
    let prefix = len
        .parse::<u8>()
        .ok()
        .filter(|_| digits_fit)
        .and_then(|len| Prefix::new(addr, len));
    prefix.ok_or_else(|| {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        format!("`{shown}`: the length behind the slash is not a number from 0 to {max}")
    })
}

/// An address in the one spelling that every reader takes alike.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    let addr: IpAddr = text.parse().map_err(|_| match has_leading_zero(text) {
        true => "an octet with leading zeros is octal to some readers: remove the zeros".to_owned(),
        false => "is not an IP address: write it like 10.1.0.0 or 2001:db8::".to_owned(),
    })?;
    match addr {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(
            "an IPv4 address in IPv6 form matches no packet of either family: write the IPv4 form"
                .to_owned(),
        ),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(addr),
    }
}

fn has_leading_zero(text: &str) -> bool {
    let octets: Vec<&str> = text.split('.').collect();
    octets.len() == 4
        && octets
            .iter()
            .all(|octet| octet.parse::<u16>().is_ok_and(|octet| octet < 256))
}
