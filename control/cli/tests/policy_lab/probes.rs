//! Who really reaches whom: a request from every end to every end of another site, and where it arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use patronus_lab::{Lab, Site};
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::Form;

/// One address pair of a site's host that traffic comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// `namespace/pod`, or a name for an address without a manifest.
    pub name: &'static str,
    /// The site, from 1.
    pub site: u8,
    /// The host part of both addresses.
    pub last: u8,
}

/// Every end of the lab: the pods of `cluster.yaml`, and per site an address that has no manifest.
pub const ENDS: [End; 9] = [
    End::new("shop/till", 1, 8),
    End::new("office/desk", 1, 9),
    End::new("outside 1", 1, 2),
    End::new("shop/api", 2, 8),
    End::new("guest/tablet", 2, 9),
    End::new("outside 2", 2, 2),
    End::new("office/printer", 3, 8),
    End::new("shop/db", 3, 9),
    End::new("outside 3", 3, 2),
];

/// Where every end listens: IP protocol and port.
pub const DOORS: [(u8, u16); 4] = [(TCP, 8443), (TCP, 9000), (UDP, 53), (SCTP, 3868)];
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;

impl End {
    const fn new(name: &'static str, site: u8, last: u8) -> Self {
        Self { name, site, last }
    }

    pub fn v4(self) -> IpAddr {
        Ipv4Addr::new(10, self.site, 0, self.last).into()
    }

    pub fn v6(self) -> IpAddr {
        Ipv6Addr::new(0xfd00, self.site.into(), 0, 0, 0, 0, 0, self.last.into()).into()
    }

    fn site(self, lab: &Lab) -> &Site {
        &lab.sites[usize::from(self.site) - 1]
    }
}

/// A connection that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    pub port: u16,
    src_end: usize,
    dst_end: usize,
}

impl Probe {
    /// What `patronus explain` calls the protocol and the port.
    pub fn door(&self) -> String {
        let name = match self.protocol {
            TCP => "tcp",
            UDP => "udp",
            _ => "sctp",
        };
        format!("{name}/{}", self.port)
    }

    /// Whether it goes from one end to another, by their names.
    pub fn is(&self, src: &str, dst: &str, protocol: u8, port: u16) -> bool {
        let names = (ENDS[self.src_end].name, ENDS[self.dst_end].name);
        names == (src, dst) && (self.protocol, self.port) == (protocol, port)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = (ENDS[self.src_end].name, ENDS[self.dst_end].name);
        let (from, to, door) = (self.src, self.dst, self.door());
        write!(f, "{src} ({from}) -> {dst} ({to}) {door}")
    }
}

/// Every way between ends of different sites, over both families: what stays within a site passes no gateway.
pub fn all_probes() -> Vec<Probe> {
    if !has_sctp() {
        println!("this kernel has no SCTP: its INIT and INIT ACK are made by hand");
    }
    let mut probes = Vec::new();
    for (src_end, src) in ENDS.iter().enumerate() {
        for (dst_end, dst) in ENDS.iter().enumerate() {
            for (src_addr, dst_addr) in [(src.v4(), dst.v4()), (src.v6(), dst.v6())] {
                for (protocol, port) in DOORS.into_iter().filter(|_| src.site != dst.site) {
                    probes.push(Probe {
                        src: src_addr,
                        dst: dst_addr,
                        protocol,
                        port,
                        src_end,
                        dst_end,
                    });
                }
            }
        }
    }
    probes
}

/// Whether the kernel itself speaks SCTP; modules are loaded by asking.
fn has_sctp() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, Some(number_of(SCTP))).is_ok()
}

fn number_of(protocol: u8) -> Protocol {
    Protocol::from(i32::from(protocol))
}

/// A socket bound to an address; port 0 takes any.
fn socket_at(protocol: u8, addr: IpAddr, port: u16) -> (Socket, Carrier) {
    let (kind, carrier) = match protocol {
        UDP => (Type::DGRAM, Carrier::Datagrams(Form::Plain)),
        SCTP if !has_sctp() => {
            let has_ip_header = addr.is_ipv4();
            let form = Form::Init { has_ip_header };
            (Type::RAW, Carrier::Datagrams(form))
        }
        _ => (Type::STREAM, Carrier::Stream),
    };
    let port = if kind == Type::RAW { 0 } else { port };
    let bound = SocketAddr::new(addr, port);
    let socket = Socket::new(Domain::for_address(bound), kind, Some(number_of(protocol))).unwrap();
    socket.set_reuse_address(kind == Type::STREAM).unwrap();
    socket.bind(&bound.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    (socket, carrier)
}

/// What a socket carries.
enum Carrier {
    Stream,
    Datagrams(Form),
}

/// Servers at every door of every end. They answer each request with itself and remember its number.
pub struct Servers {
    arrived: Arc<Mutex<BTreeSet<u32>>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Opens all doors that the probes knock at.
    pub fn start(lab: &Lab, probes: &[Probe]) -> Self {
        let mut servers = Self {
            arrived: Arc::default(),
            ended: Arc::default(),
            threads: Vec::new(),
        };
        for site in &lab.sites {
            let here = probes
                .iter()
                .filter(|it| ENDS[it.dst_end].site == site.number);
            let doors: BTreeSet<_> = here.map(|it| (it.protocol, it.dst, it.port)).collect();
            let open = || doors.iter().map(|door| Door::open(*door)).collect();
            let mut doors: Vec<Door> = site.host.run(open).unwrap();
            let (arrived, ended) = (servers.arrived.clone(), servers.ended.clone());
            servers.threads.push(std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    for door in &mut doors {
                        door.serve(&arrived);
                    }
                    sleep(TURN);
                }
            }));
        }
        servers
    }

    /// The numbers of all requests that arrived so far.
    pub fn arrived(&self) -> BTreeSet<u32> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of it has been printed; the requests that it no longer answers fail the test.
            let _ = thread.join();
        }
    }
}

/// One address and port where requests arrive.
enum Door {
    Streams(TcpListener, Vec<Visit>),
    Datagrams(UdpSocket, Form, u16),
}

/// An accepted connection and what has been read from it.
struct Visit {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Door {
    fn open((protocol, addr, port): (u8, IpAddr, u16)) -> Self {
        match socket_at(protocol, addr, port) {
            (socket, Carrier::Datagrams(form)) => Self::Datagrams(socket.into(), form, port),
            (socket, Carrier::Stream) => {
                socket.listen(128).unwrap();
                Self::Streams(socket.into(), Vec::new())
            }
        }
    }

    fn serve(&mut self, arrived: &Mutex<BTreeSet<u32>>) {
        match self {
            Self::Datagrams(socket, form, port) => {
                let mut bytes = [0; DATAGRAM_MAX];
                while let Ok((len, from)) = socket.recv_from(&mut bytes) {
                    if let Some(number) = form.read_request(&bytes[..len], *port) {
                        arrived.lock().unwrap().insert(number);
                        // The client asks again if this one is lost.
                        let _ = socket.send_to(&form.answer(number, *port), from);
                    }
                }
            }
            Self::Streams(listener, visits) => {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    let read = Vec::new();
                    visits.push(Visit { stream, read });
                }
                visits.retain_mut(|visit| visit.goes_on(arrived));
            }
        }
    }
}

impl Visit {
    /// Answers a whole request; whether the client is still there.
    fn goes_on(&mut self, arrived: &Mutex<BTreeSet<u32>>) -> bool {
        let mut chunk = [0; NUMBER_LEN];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(len) => {
                self.read.extend_from_slice(&chunk[..len]);
                if let Ok(request) = <[u8; NUMBER_LEN]>::try_from(&self.read[..]) {
                    arrived.lock().unwrap().insert(u32::from_be_bytes(request));
                    return self.stream.write_all(&request).is_ok();
                }
                true
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// A request under way.
struct Attempt {
    number: u32,
    way: Way,
    has_answer: bool,
}

enum Way {
    Stream {
        stream: TcpStream,
        has_asked: bool,
    },
    Datagrams {
        socket: UdpSocket,
        form: Form,
        request: Vec<u8>,
        to: SocketAddr,
        asked: Option<Instant>,
    },
}

impl Attempt {
    fn begin(probe: &Probe, number: u32) -> Self {
        let to = SocketAddr::new(probe.dst, probe.port);
        let way = match socket_at(probe.protocol, probe.src, 0) {
            (socket, Carrier::Datagrams(form)) => Way::Datagrams {
                socket: socket.into(),
                form,
                request: form.request(number, probe.port),
                // A raw socket knows no port.
                to: match form {
                    Form::Plain => to,
                    Form::Init { .. } => SocketAddr::new(probe.dst, 0),
                },
                asked: None,
            },
            (socket, Carrier::Stream) => {
                let begun = socket.connect(&to.into()).unwrap_err();
                let under_way = Some(nix::errno::Errno::EINPROGRESS as i32);
                assert_eq!(begun.raw_os_error(), under_way, "{probe}: {begun}");
                Way::Stream {
                    stream: socket.into(),
                    has_asked: false,
                }
            }
        };
        Self {
            number,
            way,
            has_answer: false,
        }
    }

    /// Goes on as far as it can without waiting; whether the answer has come.
    fn step(&mut self) -> bool {
        let mut bytes = [0; DATAGRAM_MAX];
        self.has_answer |= match &mut self.way {
            Way::Datagrams {
                socket,
                form,
                request,
                to,
                asked,
            } => {
                if asked.is_none_or(|then| then.elapsed() >= ASK_AGAIN) {
                    *asked = Some(Instant::now());
                    // A full buffer or a route that is away for the moment: it asks again.
                    let _ = socket.send_to(request, *to);
                }
                let mut heard = false;
                while let Ok(len) = socket.recv(&mut bytes) {
                    heard |= form.is_answer(&bytes[..len], self.number);
                }
                heard
            }
            Way::Stream { stream, has_asked } => {
                let number = self.number.to_be_bytes();
                if !*has_asked {
                    *has_asked = stream.write(&number).is_ok_and(|len| len == NUMBER_LEN);
                }
                let answer = &mut bytes[..NUMBER_LEN];
                stream.read(answer).is_ok_and(|len| len == NUMBER_LEN) && *answer == number
            }
        };
        self.has_answer
    }
}

/// The probes that were answered, and those whose request arrived. It waits for the `expected` ones with patience,
/// and then a while for others.
pub fn observe(
    lab: &Lab,
    servers: &Servers,
    probes: &[Probe],
    expected: &BTreeSet<Probe>,
) -> (BTreeSet<Probe>, BTreeSet<Probe>) {
    // Numbers never come twice: an answer of an earlier round is none to this one.
    static ROUND: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let base = (ROUND.fetch_add(1, Ordering::Relaxed) + 1) << 16;
    let numbered: BTreeMap<u32, Probe> = (base..).zip(probes.iter().copied()).collect();
    let answered: Mutex<BTreeSet<Probe>> = Mutex::default();
    let begun = Instant::now();
    scope(|scope| {
        for site in &lab.sites {
            let (numbered, answered) = (&numbered, &answered);
            scope.spawn(move || {
                let own = numbered
                    .iter()
                    .filter(|(_, it)| ENDS[it.src_end].site == site.number);
                let open = || {
                    own.map(|(number, probe)| Attempt::begin(probe, *number))
                        .collect()
                };
                let mut attempts: Vec<Attempt> = site.host.run(open).unwrap();
                let mut complete: Option<Instant> = None;
                while complete.is_none_or(|then| then.elapsed() < AFTERWARDS)
                    && begun.elapsed() < ANSWER_MAX
                {
                    for attempt in attempts.iter_mut().filter(|it| !it.has_answer) {
                        if attempt.step() {
                            let probe = numbered[&attempt.number];
                            answered.lock().unwrap().insert(probe);
                        }
                    }
                    if complete.is_none() && expected.is_subset(&answered.lock().unwrap()) {
                        complete = Some(Instant::now());
                    }
                    sleep(TURN);
                }
            });
        }
    });
    let arrived = servers.arrived();
    let arrived = numbered
        .iter()
        .filter(|(number, _)| arrived.contains(number));
    let arrived = arrived.map(|(_, probe)| *probe).collect();
    (answered.into_inner().unwrap(), arrived)
}

/// Gives every host the addresses of its pods.
pub fn settle_in(lab: &Lab) {
    let is_here = |end: &&End| lab.sites.iter().any(|site| site.number == end.site);
    for end in ENDS.iter().filter(is_here).filter(|end| end.last != 2) {
        let addresses = [
            format!("{}/24", end.v4()).parse().unwrap(),
            format!("{}/64", end.v6()).parse().unwrap(),
        ];
        let setup = patronus_lab::link::Setup {
            addresses: &addresses,
            ..Default::default()
        };
        patronus_lab::link::configure(&end.site(lab).host, "eth0", setup).unwrap();
    }
}

const NUMBER_LEN: usize = 4;
/// More than any request or answer, IP header included.
const DATAGRAM_MAX: usize = 128;
/// How long the servers and the clients sleep between turns.
const TURN: Duration = Duration::from_millis(2);
/// When a datagram without an answer is sent again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long an allowed request may take: handshakes between gateways and a repeated SYN on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long the forbidden ones are watched after all allowed ones have been answered.
const AFTERWARDS: Duration = Duration::from_millis(500);
