//! Traffic as an office makes it: streams of a few Mbit/s that swell and ebb, voice, and now and then something that
//! policy denies. One thread for all of it, since none of it is measured; it says only how much arrived.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::Leash;
use super::pace::Pace;
use crate::{Family, Lab, Site, Stop};

/// The TCP port of the streams.
pub const STREAM_PORT: u16 = 5201;
/// The UDP port of voice.
pub const VOICE_PORT: u16 = 5004;
/// A UDP port on which nobody has business.
pub const FORBIDDEN_PORT: u16 = 9;

/// Traffic between the hosts of a lab, until it is finished or dropped.
#[derive(Debug)]
pub struct Ambient {
    leash: Leash,
    received: Arc<AtomicU64>,
    thread: JoinHandle<Ambience>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ambience {
    /// Payload bytes that arrived.
    pub received_bytes: u64,
    /// Streams that broke.
    pub broken: usize,
}

impl Ambient {
    /// Connects the hosts of every two sites and starts to send: a stream and voice both ways. The first connection has to
    /// wait for the tunnels.
    ///
    /// # Errors
    /// Hosts that do not reach each other in [`CONNECT_MAX`], or a signal.
    pub fn start(lab: &Lab, stop: &Stop) -> Result<Self> {
        let mut works = Vec::new();
        let listeners = lab.sites.iter().map(listen);
        let listeners = listeners.collect::<Result<Vec<_>>>()?;
        for (at, from) in lab.sites.iter().enumerate() {
            for (to, listener) in lab.sites.iter().zip(&listeners).skip(at + 1) {
                works.push(Work::stream(from, to, listener, stop)?);
                works.push(Work::voice(from, to)?);
                works.push(Work::voice(to, from)?);
            }
        }
        if let [first, second, ..] = &lab.sites[..] {
            works.push(Work::forbidden(first, second)?);
        }
        let (leash, received) = (Leash::default(), Arc::new(AtomicU64::new(0)));
        let (flag, count) = (leash.flag(), Arc::clone(&received));
        let thread = std::thread::Builder::new()
            .name("ambient".to_owned())
            .spawn(move || run(works, &flag, &count))
            .context("starting the traffic")?;
        Ok(Self {
            leash,
            received,
            thread,
        })
    }

    /// Payload bytes that have arrived so far.
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn finish(self) -> Ambience {
        self.leash.pull();
        match self.thread.join() {
            Ok(ambience) => ambience,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// One direction between two hosts.
struct Work {
    kind: Kind,
    pace: Pace,
    /// Where in its swell a stream begins, in radians.
    phase: f64,
}

enum Kind {
    Stream {
        sender: TcpStream,
        receiver: TcpStream,
    },
    Voice {
        sender: UdpSocket,
        receiver: UdpSocket,
    },
    /// Nobody listens, and nothing arrives.
    Forbidden(UdpSocket),
}

impl Work {
    fn stream(from: &Site, to: &Site, listener: &TcpListener, stop: &Stop) -> Result<Self> {
        let target = listener.local_addr().context("asking for a port")?;
        let begun = Instant::now();
        let sender = loop {
            stop.check()?;
            let tried = from
                .host
                .run(|| TcpStream::connect_timeout(&target, TRY_MAX))?;
            match tried {
                Ok(stream) => break stream,
                Err(_) if begun.elapsed() < CONNECT_MAX => sleep(TRY_PAUSE),
                Err(error) => bail!("{} does not reach {target}: {error}", from.host.label()),
            }
        };
        SockRef::from(listener).set_read_timeout(Some(CONNECT_MAX))?;
        let (receiver, _) = listener
            .accept()
            .with_context(|| format!("accepting in {}", to.host.label()))?;
        for end in [&sender, &receiver] {
            end.set_nonblocking(true).context("setting up a stream")?;
        }
        Ok(Self::new(Kind::Stream { sender, receiver }, STREAM_PPS))
    }

    fn voice(from: &Site, to: &Site) -> Result<Self> {
        let addr = to.host_addr(Family::V4);
        let receiver = to.host.run(|| bind_shared(addr))?;
        let receiver = receiver.with_context(|| format!("binding in {}", to.host.label()))?;
        let sender = udp(from, SocketAddr::new(addr, VOICE_PORT))?;
        SockRef::from(&sender).set_tos_v4(EXPEDITED)?;
        // Voice of one pair alone: every socket of the port hears its own partner.
        receiver
            .connect(sender.local_addr()?)
            .context("connecting voice")?;
        receiver.set_nonblocking(true)?;
        Ok(Self::new(Kind::Voice { sender, receiver }, VOICE_PPS))
    }

    fn forbidden(from: &Site, to: &Site) -> Result<Self> {
        let addr = to.host_addr(Family::V4);
        let sender = udp(from, SocketAddr::new(addr, FORBIDDEN_PORT))?;
        Ok(Self::new(Kind::Forbidden(sender), FORBIDDEN_PPS))
    }

    fn new(kind: Kind, rate_pps: f64) -> Self {
        Self {
            kind,
            pace: Pace::new(rate_pps, TICK),
            phase: 0.0,
        }
    }

    /// Sends what is due and takes what came: the bytes that arrived.
    ///
    /// # Errors
    /// A stream that broke.
    fn turn(&mut self, elapsed: Duration, buffer: &mut [u8]) -> std::io::Result<u64> {
        let due = self.pace.due(elapsed);
        self.pace.count(due);
        match &mut self.kind {
            Kind::Stream { sender, receiver } => {
                let swell = 1.0 + SWELL * (elapsed.as_secs_f64() / SWELL_S + self.phase).sin();
                let bytes = (due as f64 * STREAM_CHUNK_BYTES * swell) as usize;
                // What the path does not take is not sent: this is no measurement.
                would_block(sender.write(&buffer[..bytes.min(buffer.len())]))?;
                let mut received = 0;
                loop {
                    match would_block(receiver.read(buffer))? {
                        Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                        Some(len) => received += len as u64,
                        None => return Ok(received),
                    }
                }
            }
            Kind::Voice { sender, receiver } => {
                for _ in 0..due {
                    // A path that is down refuses; the next one may not.
                    let _ = sender.send(&buffer[..VOICE_BYTES]);
                }
                let mut received = 0;
                while let Ok(len) = receiver.recv(buffer) {
                    received += len as u64;
                }
                Ok(received)
            }
            Kind::Forbidden(sender) => {
                for _ in 0..due {
                    let _ = sender.send(b"?");
                }
                Ok(0)
            }
        }
    }
}

fn run(mut works: Vec<Work>, stop: &AtomicBool, received: &AtomicU64) -> Ambience {
    for (at, work) in works.iter_mut().enumerate() {
        work.phase = at as f64;
    }
    let begun = Instant::now();
    let mut buffer = vec![0x5a; BUFFER_BYTES];
    let mut ambience = Ambience::default();
    while !stop.load(Ordering::Relaxed) {
        let elapsed = begun.elapsed();
        works.retain_mut(|work| match work.turn(elapsed, &mut buffer) {
            Ok(bytes) => {
                ambience.received_bytes += bytes;
                true
            }
            Err(_) => {
                ambience.broken += 1;
                false
            }
        });
        received.store(ambience.received_bytes, Ordering::Relaxed);
        sleep(TICK.saturating_sub(begun.elapsed().saturating_sub(elapsed)));
    }
    ambience
}

fn listen(site: &Site) -> Result<TcpListener> {
    let addr = SocketAddr::new(site.host_addr(Family::V4), STREAM_PORT);
    let listener = site.host.run(|| TcpListener::bind(addr))?;
    listener.with_context(|| format!("listening on {addr} in {}", site.host.label()))
}

fn udp(from: &Site, target: SocketAddr) -> Result<UdpSocket> {
    let own = SocketAddr::new(from.host_addr(Family::V4), 0);
    let socket = from.host.run(|| {
        let socket = UdpSocket::bind(own)?;
        socket.connect(target)?;
        socket.set_nonblocking(true)?;
        std::io::Result::Ok(socket)
    })?;
    socket.with_context(|| format!("opening a UDP socket in {}", from.host.label()))
}

fn bind_shared(addr: IpAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address((addr, 0).into()), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(addr, VOICE_PORT)))?;
    Ok(socket.into())
}

/// `None` for a call that had nothing to do.
fn would_block(result: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

const TICK: Duration = Duration::from_millis(20);
/// Pieces of a stream in a second: one a tick.
const STREAM_PPS: f64 = 50.0;
/// 4 Mbit/s on average.
const STREAM_CHUNK_BYTES: f64 = 10_000.0;
/// How much a stream swells and ebbs, of its mean.
const SWELL: f64 = 0.6;
/// Seconds of a swell, over 2π.
const SWELL_S: f64 = 8.0;
/// G.711 with 20 ms a packet.
const VOICE_PPS: f64 = 50.0;
const VOICE_BYTES: usize = 172;
/// The type-of-service byte of DSCP EF.
const EXPEDITED: u32 = 46 << 2;
const FORBIDDEN_PPS: f64 = 1.0;
const BUFFER_BYTES: usize = 64 << 10;
/// How long hosts may take to reach each other: the first handshakes and hellos, on a machine that is busy.
pub const CONNECT_MAX: Duration = Duration::from_secs(30);
const TRY_MAX: Duration = Duration::from_secs(1);
const TRY_PAUSE: Duration = Duration::from_millis(50);
