//! Files as Wireshark reads them: pcapng (draft-ietf-opsawg-pcapng), as much of it as a capture needs.

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The kernel's number of it.
    pub index: usize,
    /// Whether packets begin with an Ethernet header, else with IP's.
    pub has_ethernet: bool,
    /// Whether it is the tunnel's.
    pub is_tunnel: bool,
}

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this machine.
    In,
    /// From it.
    Out,
}

/// A packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The place of its interface in the list.
    pub interface: u32,
    /// When, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// All of it.
    pub bytes: &'a [u8],
    /// How much of it is kept.
    pub snap: u32,
    /// Which way.
    pub direction: Direction,
    /// What to say of it.
    pub comment: &'a str,
}

/// The start of a file.
pub fn head(comment: &str, interfaces: &[Interface]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(BYTE_ORDER.to_le_bytes());
    // Version 1.0, and a section of unknown length.
    body.extend([1, 0, 0, 0]);
    body.extend(u64::MAX.to_le_bytes());
    option(&mut body, OPT_COMMENT, comment.as_bytes());
    let program = concat!("patronus ", env!("CARGO_PKG_VERSION"));
    option(&mut body, SHB_USERAPPL, program.as_bytes());
    option(&mut body, OPT_END, &[]);
    let mut file = block(SECTION, &body);
    for interface in interfaces {
        let link_type = match interface.has_ethernet {
            true => LINKTYPE_ETHERNET,
            false => LINKTYPE_RAW,
        };
        let mut body = Vec::new();
        body.extend(u32::from(link_type).to_le_bytes());
        // No bound on a packet's length.
        body.extend(0u32.to_le_bytes());
        option(&mut body, IF_NAME, interface.name.as_bytes());
        option(&mut body, IF_TSRESOL, &[NANOSECONDS]);
        option(&mut body, OPT_END, &[]);
        file.extend(block(INTERFACE, &body));
    }
    file
}

/// A packet as it stands in a file.
pub fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let kept = packet.bytes.len().min(packet.snap as usize);
    let mut body = Vec::with_capacity(kept + 96);
    body.extend(packet.interface.to_le_bytes());
    body.extend(((packet.unix_ns >> 32) as u32).to_le_bytes());
    body.extend((packet.unix_ns as u32).to_le_bytes());
    body.extend((kept as u32).to_le_bytes());
    body.extend((packet.bytes.len() as u32).to_le_bytes());
    body.extend(&packet.bytes[..kept]);
    pad(&mut body);
    let direction: u32 = match packet.direction {
        Direction::In => 1,
        Direction::Out => 2,
    };
    option(&mut body, EPB_FLAGS, &direction.to_le_bytes());
    option(&mut body, OPT_COMMENT, packet.comment.as_bytes());
    option(&mut body, OPT_END, &[]);
    block(PACKET, &body)
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    debug_assert_eq!(body.len() % 4, 0);
    let len = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &len, body, &len].concat()
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const NANOSECONDS: u8 = 9;
const LINKTYPE_ETHERNET: u16 = 1;
const LINKTYPE_RAW: u16 = 101;

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks by kind and body, whose two lengths agree.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut found = Vec::new();
        while !file.is_empty() {
            let (kind, len) = (number(file), number(&file[4..]) as usize);
            assert_eq!(len % 4, 0);
            assert_eq!(number(&file[len - 4..]) as usize, len);
            found.push((kind, file[8..len - 4].to_vec()));
            file = &file[len..];
        }
        found
    }

    #[test]
    fn a_file_is_a_section_its_interfaces_and_packets_with_their_comments() {
        let interface = |name: &str, has_ethernet| Interface {
            name: name.to_owned(),
            index: 1,
            has_ethernet,
            is_tunnel: !has_ethernet,
        };
        let mut file = head(
            "five",
            &[interface("patronus0", false), interface("eth0", true)],
        );
        file.extend(packet(&Packet {
            interface: 1,
            unix_ns: (7 << 32) + 5,
            bytes: &[1, 2, 3, 4, 5],
            snap: 3,
            direction: Direction::Out,
            comment: "path branch/0",
        }));
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|it| it.0).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, INTERFACE, PACKET]);
        assert_eq!(blocks[0].1[..4], BYTE_ORDER.to_le_bytes());
        assert_eq!((blocks[1].1[0], blocks[2].1[0]), (101, 1));
        let packet = &blocks[3].1;
        assert_eq!(
            packet[..20],
            [1, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0]
        );
        assert_eq!(packet[20..24], [1, 2, 3, 0]);
        assert_eq!(packet[24..32], [2, 0, 4, 0, 2, 0, 0, 0]);
        let text = String::from_utf8_lossy(packet);
        assert!(text.contains("path branch/0"));
    }
}
