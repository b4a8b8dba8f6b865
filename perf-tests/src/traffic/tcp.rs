//! Bulk TCP: blocking flows with large buffers, bytes counted by the receiver.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;

use super::Leash;
use crate::Namespace;

/// One or more TCP flows that send as fast as the path takes it, until finished.
#[derive(Debug)]
pub struct BulkTcp {
    stop: Leash,
    received: Arc<AtomicU64>,
    flows: Vec<Flow>,
}

#[derive(Debug)]
struct Flow {
    /// Handles for waking threads that are blocked.
    ends: [TcpStream; 2],
    sender: JoinHandle<std::io::Result<()>>,
    receiver: JoinHandle<std::io::Result<()>>,
}

impl BulkTcp {
    /// Connects `flows` flows from `from` to `addr` in `to` and starts them.
    ///
    /// # Errors
    /// A connection that does not come about in thirty seconds.
    pub fn start(from: &Namespace, to: &Namespace, addr: IpAddr, flows: usize) -> Result<Self> {
        let stop = Leash::default();
        let received = Arc::new(AtomicU64::new(0));
        let flows = (0..flows)
            .map(|_| {
                let (sender, receiver) = connect(from, to, addr)?;
                Flow::start(sender, receiver, &stop, &received).context("starting a TCP flow")
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            stop,
            received,
            flows,
        })
    }

    /// Payload bytes that have arrived so far, over all flows.
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends all flows.
    ///
    /// # Errors
    /// A flow that broke before it was ended.
    pub fn finish(self) -> Result<()> {
        self.stop.pull();
        for flow in &self.flows {
            for end in &flow.ends {
                // An end that is closed already has nothing to be woken from.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
        let mut first = Ok(());
        for flow in self.flows {
            for thread in [flow.sender, flow.receiver] {
                match thread.join() {
                    Ok(result) => first = first.and(result.context("a TCP flow broke")),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        }
        first
    }
}

impl Flow {
    fn start(
        sender: TcpStream,
        receiver: TcpStream,
        stop: &Leash,
        received: &Arc<AtomicU64>,
    ) -> std::io::Result<Self> {
        let ends = [sender.try_clone()?, receiver.try_clone()?];
        let (flag, count) = (stop.flag(), Arc::clone(received));
        let receiver = std::thread::Builder::new()
            .name("tcp receiver".to_owned())
            .spawn(move || receive(receiver, &flag, &count))?;
        let flag = stop.flag();
        let sender = std::thread::Builder::new()
            .name("tcp sender".to_owned())
            .spawn(move || send(sender, &flag))?;
        Ok(Self {
            ends,
            sender,
            receiver,
        })
    }
}

/// A connected pair, the first end in `from`, the second in `to`.
///
/// # Errors
/// When the connection does not come about in thirty seconds.
pub(crate) fn connect(
    from: &Namespace,
    to: &Namespace,
    addr: IpAddr,
) -> Result<(TcpStream, TcpStream)> {
    let listener = to
        .run(|| TcpListener::bind(SocketAddr::new(addr, 0)))?
        .with_context(|| format!("listening on {addr} in {}", to.label()))?;
    let target = listener
        .local_addr()
        .context("asking for the listener's port")?;
    let sender = from
        .run(|| TcpStream::connect_timeout(&target, CONNECT_MAX))?
        .with_context(|| {
            format!(
                "connecting from {} to {target} in {}",
                from.label(),
                to.label()
            )
        })?;
    // The server sees a connection one ACK later than the client, or never, if the path just broke.
    SockRef::from(&listener)
        .set_read_timeout(Some(CONNECT_MAX))
        .context("setting a timeout")?;
    let (receiver, _) = listener.accept().context("accepting the connection")?;
    for stream in [&sender, &receiver] {
        stream
            .set_read_timeout(Some(WAKE))
            .context("setting a timeout")?;
        stream
            .set_write_timeout(Some(WAKE))
            .context("setting a timeout")?;
    }
    Ok((sender, receiver))
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> std::io::Result<()> {
    let buffer = vec![0x5a; BUFFER_BYTES];
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&buffer) {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(_) if stop.load(Ordering::Relaxed) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn receive(mut stream: TcpStream, stop: &AtomicBool, received: &AtomicU64) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) if stop.load(Ordering::Relaxed) => break,
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                received.fetch_add(len as u64, Ordering::Relaxed);
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) if stop.load(Ordering::Relaxed) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a blocking call merely ran into its timeout.
pub(crate) fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// How long a connection may take: a SYN that is lost is repeated after one, three and seven seconds.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How often a blocked thread looks whether it should end.
const WAKE: Duration = Duration::from_millis(200);
/// Bytes per call.
const BUFFER_BYTES: usize = 256 << 10;
