//! A path emulator in user space: it stands in a namespace of its own between the uplinks of sites and forwards their
//! Ethernet frames through impaired wires, in real time. For kernels without netem, and for faults that netem has not.
//!
//! One thread reads all ports, decides with [`patronus_impair`], and sends what is due. It sleeps until the next frame
//! comes or falls due, by a timer of the kernel's full resolution, and never spins. Where it may, it takes the highest
//! priority, so that a machine full of traffic does not show as a bad path; how late frames left is measured in
//! [`FrameCounters::late_us`] all the same.
//!
//! Sites' interfaces must send real packets, not the superpackets of segmentation offload, for MTU, rate and loss to act
//! on: [`link::without_segmentation`](crate::link::without_segmentation). Checksums that the kernel leaves to the device
//! are completed here.

mod cloud;
mod frame;
mod port;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use patronus_impair::{Direction, Heading, Impairment, Schedule, WireCounters};
use patronus_packet::Prefix;
use rustix::process::setpriority_process;

use cloud::Cloud;
pub use cloud::{FRAMES_MAX, FrameCounters, Link, PortId};
use port::{Port, Read};

use crate::{Namespace, proc};

/// One port: an interface in the emulator's namespace, without addresses and up, whose other end is a site's uplink.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// The interface's name.
    pub interface: String,
    /// The addresses at the other end.
    pub prefixes: Vec<Prefix>,
}

/// What happened in one direction of one link.
#[derive(Clone, Copy, Debug)]
pub struct LinkCounters {
    /// The link.
    pub link: Link,
    /// The direction.
    pub heading: Heading,
    /// What the wire did.
    pub wire: WireCounters,
}

/// A running emulator. Dropping it ends it.
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<std::io::Result<Result<()>>>>,
    namespace: Namespace,
    interfaces: Vec<String>,
    /// Frames that the interfaces had received before.
    arrived_before: u64,
}

struct Shared {
    cloud: Mutex<Cloud>,
    begun: Instant,
    must_end: AtomicBool,
    /// How many other threads want the cloud: a busy emulator would not leave it to them otherwise.
    wanted: AtomicUsize,
}

impl Emulator {
    /// Starts a thread in `namespace` that forwards between the ports, each with each; nothing is impaired at first.
    /// The seed and the times of the frames determine what happens to them.
    ///
    /// # Errors
    /// Fewer than two ports or more than [`PORTS_MAX`], no such interface, or no right to open packet sockets.
    pub fn start(namespace: &Namespace, ports: Vec<PortSpec>, seed: u64) -> Result<Self> {
        ensure!(
            (2..=PORTS_MAX).contains(&ports.len()),
            "{} ports: an emulator has 2 to {PORTS_MAX}",
            ports.len()
        );
        let open = || {
            let opened = ports.iter().map(|port| Port::open(&port.interface));
            opened.collect::<Result<Vec<_>>>()
        };
        let sockets = namespace.run(open)??;
        let (interfaces, prefixes): (Vec<_>, Vec<_>) = ports
            .into_iter()
            .map(|port| (port.interface, port.prefixes))
            .unzip();
        let arrived_before = proc::frames_received(namespace, &interfaces)?;
        let shared = Arc::new(Shared {
            cloud: Mutex::new(Cloud::new(prefixes, seed)),
            begun: Instant::now(),
            must_end: AtomicBool::new(false),
            wanted: AtomicUsize::new(0),
        });
        let at_work = shared.clone();
        let thread = namespace
            .start(move || at_work.forward(&sockets))
            .context("starting the emulator's thread")?;
        Ok(Self {
            shared,
            thread: Some(thread),
            namespace: namespace.clone(),
            interfaces,
            arrived_before,
        })
    }

    /// Changes what is done to the frames to come.
    ///
    /// # Panics
    /// For a port that there is not.
    pub fn set(&self, link: Link, direction: Direction, impairment: Impairment) {
        self.check(link);
        self.shared.cloud().set(link, direction, impairment);
    }

    /// What is done to frames.
    ///
    /// # Panics
    /// For a port that there is not.
    pub fn impairment(&self, link: Link, heading: Heading) -> Impairment {
        self.check(link);
        self.shared.cloud().impairment(link, heading)
    }

    /// Has a schedule change links from now on; `links` has the name of each in the schedule. What a link does by itself
    /// is what it does now.
    ///
    /// # Panics
    /// For a port that there is not.
    pub fn follow(&self, schedule: Schedule, links: &[(String, Link)]) {
        for (_, link) in links {
            self.check(*link);
        }
        let now = self.shared.now();
        self.shared.cloud().follow(schedule, links, now);
    }

    /// What happened on all links in both directions: uplinks first, then pairs.
    pub fn counters(&self) -> Vec<LinkCounters> {
        let cloud = self.shared.cloud();
        let links = cloud.links().into_iter();
        links
            .flat_map(|link| Heading::BOTH.map(|heading| (link, heading)))
            .map(|(link, heading)| LinkCounters {
                link,
                heading,
                wire: cloud.counters_of(link, heading),
            })
            .collect()
    }

    /// What happened on one link in one direction.
    ///
    /// # Panics
    /// For a port that there is not.
    pub fn counters_of(&self, link: Link, heading: Heading) -> WireCounters {
        self.check(link);
        self.shared.cloud().counters_of(link, heading)
    }

    /// What happened to frames, and how late they were.
    pub fn frames(&self) -> FrameCounters {
        self.shared.cloud().counters.clone()
    }

    /// Frames that reached an interface and were not read: they are about to be, or the emulator was too slow and its
    /// socket's buffer was full. Then no link's counters know of them.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn unread(&self) -> Result<u64> {
        // In this order: what arrives in between counts as unread, not as less than nothing.
        let received = self.frames().received;
        let arrived = proc::frames_received(&self.namespace, &self.interfaces)?;
        Ok((arrived - self.arrived_before).saturating_sub(received))
    }

    /// Forgets how late frames were so far.
    pub fn reset_lateness(&self) {
        self.shared.cloud().counters.late_us.reset();
    }

    /// Whether the thread is at work; where not, [`stop`](Self::stop) says why.
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the thread.
    ///
    /// # Errors
    /// What made it end before it was told to.
    pub fn stop(mut self) -> Result<FrameCounters> {
        self.end()?;
        Ok(self.frames())
    }

    fn end(&mut self) -> Result<()> {
        self.shared.must_end.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let ended = thread
            .join()
            .map_err(|_| anyhow!("the emulator's thread panicked"))?;
        ended.context("entering the emulator's namespace")?
    }

    fn check(&self, link: Link) {
        let (a, b) = match link {
            Link::Access(port) => (port, port),
            Link::Pair(a, b) => (a, b),
        };
        assert!(
            a.0.max(b.0) < self.interfaces.len(),
            "{link:?}: there are {} ports",
            self.interfaces.len()
        );
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Whoever wants the reason calls `stop`.
        let _ = self.end();
    }
}

impl Shared {
    /// The thread.
    fn forward(&self, ports: &[Port]) -> Result<()> {
        // The default slack of 50 µs would be added to every delay.
        set_timerslack(1).context("asking for exact timers")?;
        // On Linux this is the calling thread alone. Without the right to it the emulator works too, if later.
        let _ = setpriority_process(None, NICE);
        let mut buffer = vec![0; FRAME_LEN_MAX];
        let mut out = |to: usize, frame: &[u8]| ports[to].send(frame);
        while !self.must_end.load(Ordering::Relaxed) {
            let wait = {
                let mut cloud = self.lock();
                cloud.advance(self.now(), &mut out);
                for (number, port) in ports.iter().enumerate() {
                    for _ in 0..READS_PER_TURN {
                        match port.read(&mut buffer)? {
                            Read::Frame(len) => {
                                let frame = buffer[..len].to_vec();
                                cloud.receive(number, frame, self.now(), &mut out);
                            }
                            Read::Own => {}
                            Read::Empty => break,
                        }
                    }
                }
                let now = self.now();
                cloud
                    .next_due()
                    .map_or(WAIT_MAX, |due| due.saturating_sub(now).min(WAIT_MAX))
            };
            while self.wanted.load(Ordering::Relaxed) > 0 {
                std::thread::yield_now();
            }
            if wait.is_zero() {
                continue;
            }
            let mut waiting: Vec<PollFd<'_>> = ports
                .iter()
                .map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN))
                .collect();
            match ppoll(&mut waiting, Some(TimeSpec::from_duration(wait)), None) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for frames"),
            }
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The cloud, for all but the emulator's thread.
    fn cloud(&self) -> MutexGuard<'_, Cloud> {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let cloud = self.lock();
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        cloud
    }

    fn lock(&self) -> MutexGuard<'_, Cloud> {
        // The emulator's thread ends with its panic, which `stop` tells; the counters stay readable.
        self.cloud.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The nice value of the emulator's thread (sched(7)).
const NICE: i32 = -20;
/// The most ports: eight sites of eight uplinks.
pub const PORTS_MAX: usize = 64;
/// Longer than any frame of a veth without segmentation offload.
const FRAME_LEN_MAX: usize = 65_536 + 14;
/// Frames read from one port before the others have their turn.
const READS_PER_TURN: usize = 32;
/// How long the thread sleeps at most: how late it notices that it is to end.
const WAIT_MAX: Duration = Duration::from_millis(20);
