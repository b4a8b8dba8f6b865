//! What the workers of one gateway share: mailboxes for packets that another worker has to treat, the
//! configuration in force, and the bell that ends a sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use patronus_engine::{Event, Handoff, PathOrder, Snapshot};
use patronus_io::{Neighbourhood, UplinkSet, Waker, Way};
use patronus_packet::UplinkId;
use patronus_tunnel::WorkerId;
use tokio::sync::Notify;

use crate::meter::WorkerMeter;
use crate::sockets::Sockets;

/// Packets that may wait for a worker: 256 superpackets are 16 MiB.
const INBOX_MAX: usize = 256;
/// Events that wait for control.
const EVENTS_MAX: usize = 4096;

/// Where workers put events for control, which wakes for them.
#[derive(Clone, Debug)]
pub struct EventSink {
    sender: Sender<Event>,
    arrived: Arc<Notify>,
}

/// Where control takes them.
#[derive(Debug)]
pub struct EventSource {
    receiver: Receiver<Event>,
    arrived: Arc<Notify>,
}

/// A bounded queue of events, all workers together.
pub fn events() -> (EventSink, EventSource) {
    let (sender, receiver) = crossbeam::channel::bounded(EVENTS_MAX);
    let arrived = Arc::new(Notify::new());
    let sink = EventSink {
        sender,
        arrived: arrived.clone(),
    };
    (sink, EventSource { receiver, arrived })
}

impl EventSink {
    /// Puts an event; `false` when control is too far behind.
    pub fn put(&self, event: Event) -> bool {
        let taken = self.sender.try_send(event).is_ok();
        self.arrived.notify_one();
        taken
    }
}

impl EventSource {
    /// Waits until there may be events.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The events there are.
    pub fn take(&self) -> Vec<Event> {
        self.receiver.try_iter().collect()
    }
}

/// An order from control to one worker.
#[derive(Debug)]
pub enum Order {
    /// Use these UDP sockets from here on; the old ones are closed.
    Sockets(Box<Sockets>),
    /// What is behind the interface with this index, for the queues that are served by AF_XDP.
    Neighbourhood(u32, Arc<Neighbourhood>),
    /// The interface of each uplink from here on; before an order about paths that follows from it.
    Uplinks(Arc<[(UplinkId, Way)]>),
    /// Something about paths.
    Path(PathOrder),
    /// Mark the datagrams of these sockets; `None` removes the mark.
    Mark(Option<u32>),
    /// Meter the stages of the pipeline for so long; zero ends it.
    MeterStages(Duration),
}

/// One worker's letter box.
pub struct Mailbox {
    /// Packets from siblings, with the sender who wants the buffer back.
    inbox: ArrayQueue<(WorkerId, Handoff)>,
    /// Own buffers that siblings are done with.
    returns: ArrayQueue<Handoff>,
    /// Orders from control.
    orders: (Sender<Order>, Receiver<Order>),
    asleep: CachePadded<AtomicBool>,
    waker: Arc<Waker>,
    /// Panics that the worker survived.
    pub panics: AtomicU64,
    /// Where the worker's time goes.
    pub meter: CachePadded<WorkerMeter>,
    /// The worker's TUN queue has lost its interface.
    pub tun_gone: AtomicBool,
    /// By bit: uplinks that could not send since control looked last.
    refused_uplinks: AtomicU32,
}

/// All that workers and control share.
pub struct Exchange {
    snapshot: ArcSwap<Snapshot>,
    stop: AtomicBool,
    mailboxes: Vec<Mailbox>,
}

impl Mailbox {
    /// An empty letter box of the worker that sleeps on `waker`'s poller.
    pub fn new(waker: Arc<Waker>) -> Self {
        Self {
            inbox: ArrayQueue::new(INBOX_MAX),
            returns: ArrayQueue::new(INBOX_MAX),
            orders: crossbeam::channel::unbounded(),
            asleep: CachePadded::new(AtomicBool::new(false)),
            waker,
            panics: AtomicU64::new(0),
            meter: CachePadded::default(),
            tun_gone: AtomicBool::new(false),
            refused_uplinks: AtomicU32::new(0),
        }
    }

    /// The next packet from a sibling.
    pub fn take(&self) -> Option<(WorkerId, Handoff)> {
        self.inbox.pop()
    }

    /// Packets that wait, and how many may.
    pub fn fill(&self) -> (usize, usize) {
        (self.inbox.len(), self.inbox.capacity())
    }

    /// The next buffer that came back.
    pub fn take_returned(&self) -> Option<Handoff> {
        self.returns.pop()
    }

    /// The next order.
    pub fn take_order(&self) -> Option<Order> {
        self.orders.1.try_recv().ok()
    }

    /// The worker says which uplinks could not send.
    pub fn put_refused(&self, uplinks: UplinkSet) {
        let bits = uplinks.iter().fold(0, |bits, uplink| bits | 1 << uplink.0);
        self.refused_uplinks.fetch_or(bits, Ordering::Relaxed);
    }

    /// The uplinks that could not send since the last call.
    pub fn take_refused(&self) -> UplinkSet {
        let bits = self.refused_uplinks.swap(0, Ordering::Relaxed);
        let mut uplinks = UplinkSet::default();
        for number in (0..UplinkId::COUNT_MAX as u8).filter(|number| bits >> number & 1 == 1) {
            uplinks.insert(UplinkId(number));
        }
        uplinks
    }

    /// Announces sleep; `false` where something came in meanwhile and the worker must look again.
    pub fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let idle = self.inbox.is_empty() && self.orders.1.is_empty();
        if !idle {
            self.awake();
        }
        idle
    }

    /// Ends the announced sleep.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Rings, if the worker sleeps: a system call only then.
    fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // An error means that the event counter is full: the worker is woken already.
            let _ = self.waker.wake();
        }
    }
}

impl Exchange {
    /// The shared half of a gateway with these workers.
    pub fn new(snapshot: Arc<Snapshot>, mailboxes: Vec<Mailbox>) -> Self {
        Self {
            snapshot: ArcSwap::new(snapshot),
            stop: AtomicBool::new(false),
            mailboxes,
        }
    }

    /// The letter box of a worker.
    pub fn mailbox(&self, worker: WorkerId) -> &Mailbox {
        &self.mailboxes[worker.as_usize()]
    }

    /// All letter boxes, by worker.
    pub fn mailboxes(&self) -> &[Mailbox] {
        &self.mailboxes
    }

    /// The configuration in force, for a worker's `arc_swap::Cache`.
    pub fn snapshot(&self) -> &ArcSwap<Snapshot> {
        &self.snapshot
    }

    /// Puts a configuration in force; workers pick it up between two batches.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.store(snapshot);
        self.ring_all();
    }

    /// Gives an order to one worker.
    pub fn order(&self, worker: WorkerId, order: Order) {
        let mailbox = self.mailbox(worker);
        // The receiver lives in the same mailbox.
        let _ = mailbox.orders.0.send(order);
        mailbox.ring();
    }

    /// Gives a packet to its owner; gives it back where the owner's inbox is full.
    pub fn hand(&self, from: WorkerId, to: WorkerId, handoff: Handoff) -> Result<(), Handoff> {
        let Some(mailbox) = self.mailboxes.get(to.as_usize()) else {
            return Err(handoff);
        };
        let sent = mailbox.inbox.push((from, handoff));
        mailbox.ring();
        sent.map_err(|(_, handoff)| handoff)
    }

    /// Gives a buffer back to the worker it came from; one too many is freed.
    pub fn give_back(&self, to: WorkerId, handoff: Handoff) {
        let _ = self.mailbox(to).returns.push(handoff);
    }

    /// Tells all workers to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ring_all();
    }

    /// Whether workers are to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn ring_all(&self) {
        for mailbox in &self.mailboxes {
            mailbox.awake();
            let _ = mailbox.waker.wake();
        }
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("workers", &self.mailboxes.len())
            .finish_non_exhaustive()
    }
}
