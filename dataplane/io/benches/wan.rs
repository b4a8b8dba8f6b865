//! When does AF_XDP win? A UDP socket with and without its offloads against AF_XDP by a copy, over one veth pair, side
//! by side: rounds of all cases one after the other, so that what else the machine does meets all of them.
//!
//! `cargo bench -p patronus-io --bench wan -- [--rounds N] [--ms N] [--json FILE]`. Needs root. It says how many
//! packets per second came, what the receiving thread paid for each, and what both threads together paid: on veth the
//! sender's thread does the kernel's share of receiving too.
#![allow(clippy::unwrap_used, unsafe_code)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::xsk::{FAR_V4, Hook, NEAR, NEAR_V4, Redirect, index_of, neighbourhood, with_far};
use patronus_io::{
    Core, DoorPorts, Poller, Token, TrainSet, UdpOptions, UdpSocket, WanSocket, XdpMode,
    XdpOptions, XdpSocket, allowed_cores, pin_current_thread,
};
use patronus_packet::{Endpoint, TrainLimits, UdpBatch, UdpFrame};

const PORT: u16 = 51_820;
/// As a worker's queue of datagrams.
const BATCH: usize = 128;
const FRAMES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// `recvmmsg` and `sendmmsg`, datagram by datagram.
    Plain,
    /// `UDP_GRO` and `UDP_SEGMENT`.
    Offload,
    /// AF_XDP, native hook, by a copy.
    Xdp,
}

const DOORS: [Door; 3] = [Door::Plain, Door::Offload, Door::Xdp];

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "udp",
            Self::Offload => "udp-gso-gro",
            Self::Xdp => "af-xdp-copy",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// The door receives what the far end sends datagram by datagram.
    RecvSingle,
    /// The door receives what the far end sends as trains.
    RecvTrains,
    /// The door sends.
    Send,
}

const TASKS: [Task; 3] = [Task::RecvSingle, Task::RecvTrains, Task::Send];
const SIZES: [usize; 2] = [64, 1400];

impl Task {
    fn name(self) -> &'static str {
        match self {
            Self::RecvSingle => "recv-single",
            Self::RecvTrains => "recv-trains",
            Self::Send => "send",
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    kpps: f64,
    /// CPU time of the thread at the door, per packet.
    thread_ns: f64,
    /// CPU time of both threads, per packet.
    both_ns: f64,
}

/// What the far end is told to do.
#[derive(Clone, Copy, Debug)]
enum Order {
    Send { size: usize, trains: bool },
    Swallow,
}

struct Far {
    orders: mpsc::Sender<Order>,
    /// CPU time of the far end's thread in the last order.
    cpu: mpsc::Receiver<Duration>,
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut rounds, mut ms, mut json) = (3, 500, None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().unwrap().parse().unwrap(),
            "--ms" => ms = args.next().unwrap().parse().unwrap(),
            "--json" => json = args.next(),
            _ => {}
        }
    }
    // `cargo test --benches` runs this too: there is nothing to assert.
    if std::env::args().any(|arg| arg == "--test") || !nix::unistd::geteuid().is_root() {
        println!("skipped: a measurement, and only for root");
        return;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let cores = allowed_cores();
    let (near_core, far_core) = (cores[0], cores[cores.len() - 1]);
    let far = start_far(far_core);
    pin_current_thread(near_core);
    let mut samples = vec![Vec::new(); TASKS.len() * SIZES.len() * DOORS.len()];
    for _ in 0..rounds {
        let mut at = 0;
        for task in TASKS {
            for size in SIZES {
                for door in DOORS {
                    let sample = measure(&far, task, size, door, Duration::from_millis(ms));
                    samples[at].push(sample);
                    at += 1;
                }
            }
        }
    }
    drop(far.orders);
    report(&samples, rounds, ms, json);
}

fn report(samples: &[Vec<Sample>], rounds: usize, ms: u64, json: Option<String>) {
    println!("median of {rounds} rounds of {ms} ms [least, most]; CPU in ns per packet");
    println!(
        "{:<12} {:>5} {:<12} {:>22} {:>8} {:>8}",
        "task", "B", "door", "kpps", "door", "both"
    );
    let mut rows = Vec::new();
    let mut at = 0;
    for task in TASKS {
        for size in SIZES {
            for door in DOORS {
                let of = |pick: fn(&Sample) -> f64| {
                    let mut values: Vec<f64> = samples[at].iter().map(pick).collect();
                    values.sort_by(f64::total_cmp);
                    (
                        values[0],
                        values[values.len() / 2],
                        values[values.len() - 1],
                    )
                };
                let (least, kpps, most) = of(|sample| sample.kpps);
                let (_, thread_ns, _) = of(|sample| sample.thread_ns);
                let (_, both_ns, _) = of(|sample| sample.both_ns);
                let span = format!("{kpps:.0} [{least:.0}, {most:.0}]");
                let (task, door) = (task.name(), door.name());
                println!(
                    "{task:<12} {size:>5} {door:<12} {span:>22} {thread_ns:>8.0} {both_ns:>8.0}"
                );
                rows.push(format!(
                    "    {{\"task\": \"{task}\", \"payload_bytes\": {size}, \"door\": \"{door}\", \"kpps_median\": {kpps:.1}, \
                     \"kpps_min\": {least:.1}, \"kpps_max\": {most:.1}, \"door_cpu_ns_per_packet\": {thread_ns:.0}, \
                     \"both_cpu_ns_per_packet\": {both_ns:.0}}}"
                ));
                at += 1;
            }
        }
    }
    let Some(file) = json else { return };
    let text = format!(
        "{{\n  \"schema\": \"patronus-io-wan-1\",\n  \"rounds\": {rounds},\n  \"ms\": {ms},\n  \"cases\": [\n{}\n  ]\n}}\n",
        rows.join(",\n")
    );
    std::fs::write(file, text).unwrap();
}

fn start_far(core: Core) -> Far {
    let (orders, to_do) = mpsc::channel::<Order>();
    let (cpu_in, cpu) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let (stopped, count) = (stop.clone(), received.clone());
    with_far(1, move || {
        pin_current_thread(core);
        for order in to_do {
            let before = thread_cpu();
            match order {
                Order::Send { size, trains } => send_until(&stopped, size, trains),
                Order::Swallow => swallow_until(&stopped, &count),
            }
            let _ = cpu_in.send(thread_cpu().saturating_sub(before));
        }
    });
    Far {
        orders,
        cpu,
        stop,
        received,
    }
}

fn udp(ip: &str, port: u16, offload: bool) -> UdpSocket {
    let options = UdpOptions {
        recv_buffer: 4 << 20,
        send_buffer: 4 << 20,
        want_gso: offload,
        want_gro: offload,
        ..UdpOptions::default()
    };
    let ip: IpAddr = ip.parse().unwrap();
    UdpSocket::bind(SocketAddr::new(ip, port), &options).unwrap()
}

fn filled(size: usize, trains: bool, to: &str, port: u16) -> UdpBatch {
    let limits = match trains {
        true => TrainLimits {
            segments: 45,
            bytes: 64_000,
        },
        false => TrainLimits::SINGLE,
    };
    let mut batch = UdpBatch::new(BATCH * 1500, limits);
    let to = Endpoint::from(SocketAddr::new(to.parse().unwrap(), port));
    for number in 0..BATCH {
        batch.room()[..size].fill(number as u8);
        batch.commit(size, &to);
    }
    batch
}

fn send_until(stop: &AtomicBool, size: usize, trains: bool) {
    let mut socket = udp(FAR_V4, 0, trains);
    let batch = filled(size, trains, NEAR_V4, PORT);
    while !stop.load(Ordering::Relaxed) {
        socket.send(&batch);
    }
}

/// Receives as cheaply as there is: the door on the other side is what is measured.
fn swallow_until(stop: &AtomicBool, received: &AtomicU64) {
    let mut socket = udp(FAR_V4, PORT, true);
    let mut poller = Poller::new().unwrap();
    poller.register(socket.as_fd(), Token(0)).unwrap();
    let mut frames: Vec<UdpFrame> = (0..FRAMES).map(|_| UdpFrame::default()).collect();
    while !stop.load(Ordering::Relaxed) {
        poller.wait(Some(Duration::from_millis(5))).unwrap().count();
        drain(&mut socket, &mut frames, received, stop);
    }
}

fn drain(
    socket: &mut impl WanSocket,
    frames: &mut [UdpFrame],
    received: &AtomicU64,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        let filled = socket.recv(frames).unwrap();
        if filled == 0 {
            return;
        }
        let datagrams = frames[..filled]
            .iter()
            .map(|frame| match frame.segment_len {
                0 => 1,
                len => frame.buf.len().div_ceil(len) as u64,
            });
        received.fetch_add(datagrams.sum(), Ordering::Relaxed);
    }
}

fn measure(far: &Far, task: Task, size: usize, door: Door, span: Duration) -> Sample {
    let (_redirect, sample) = match door {
        Door::Plain | Door::Offload => {
            let socket = udp(NEAR_V4, PORT, door == Door::Offload);
            (None, run(far, task, size, door, span, socket))
        }
        Door::Xdp => {
            // The port must be somebody's, or what is not redirected is answered with ICMP.
            let _port = udp(NEAR_V4, PORT, false);
            let redirect = Redirect::attach(NEAR, PORT, Hook::Native).unwrap();
            let ports = DoorPorts {
                listen: PORT,
                lane_v4: None,
                lane_v6: None,
            };
            let options = XdpOptions {
                mode: XdpMode::Copy,
                ..XdpOptions::new(index_of(NEAR), 0, 1500, ports)
            };
            let mut socket = XdpSocket::open(&options).unwrap();
            socket.set_neighbourhood(neighbourhood().into());
            redirect.insert(0, socket.as_fd());
            (Some(redirect), run(far, task, size, door, span, socket))
        }
    };
    sample
}

fn run(
    far: &Far,
    task: Task,
    size: usize,
    door: Door,
    span: Duration,
    socket: impl WanSocket,
) -> Sample {
    far.stop.store(false, Ordering::Relaxed);
    let (packets, seconds, cpu) = match task {
        Task::RecvSingle | Task::RecvTrains => {
            let trains = task == Task::RecvTrains;
            far.orders.send(Order::Send { size, trains }).unwrap();
            receive(socket, span)
        }
        Task::Send => {
            far.orders.send(Order::Swallow).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            far.received.store(0, Ordering::Relaxed);
            let (_, seconds, cpu) = send(socket, size, door, span);
            (far.received.load(Ordering::Relaxed), seconds, cpu)
        }
    };
    far.stop.store(true, Ordering::Relaxed);
    let far_cpu = far.cpu.recv().unwrap();
    let per_packet = |cpu: Duration| cpu.as_secs_f64() * 1e9 / packets.max(1) as f64;
    Sample {
        kpps: packets as f64 / seconds / 1e3,
        thread_ns: per_packet(cpu),
        both_ns: per_packet(cpu + far_cpu),
    }
}

fn receive(mut socket: impl WanSocket, span: Duration) -> (u64, f64, Duration) {
    let mut poller = Poller::new().unwrap();
    poller.register(socket.as_fd(), Token(0)).unwrap();
    let mut frames: Vec<UdpFrame> = (0..FRAMES).map(|_| UdpFrame::default()).collect();
    let received = AtomicU64::new(0);
    let (start, before) = (Instant::now(), thread_cpu());
    while start.elapsed() < span {
        poller
            .wait(Some(Duration::from_millis(20)))
            .unwrap()
            .count();
        // Until nothing waits, or a moment has passed: the flood does not end.
        let until = Instant::now() + Duration::from_millis(2);
        loop {
            let filled = socket.recv(&mut frames).unwrap();
            if filled == 0 {
                break;
            }
            let datagrams = frames[..filled]
                .iter()
                .map(|frame| match frame.segment_len {
                    0 => 1,
                    len => frame.buf.len().div_ceil(len) as u64,
                });
            received.fetch_add(datagrams.sum(), Ordering::Relaxed);
            if Instant::now() > until && start.elapsed() > span {
                break;
            }
        }
    }
    let cpu = thread_cpu().saturating_sub(before);
    (received.into_inner(), start.elapsed().as_secs_f64(), cpu)
}

fn send(
    mut socket: impl WanSocket,
    size: usize,
    door: Door,
    span: Duration,
) -> (u64, f64, Duration) {
    let batch = filled(size, door != Door::Plain, FAR_V4, PORT);
    let mut done = TrainSet::default();
    let mut sent = 0;
    let (start, before) = (Instant::now(), thread_cpu());
    while start.elapsed() < span {
        done.clear();
        sent += socket.send_rest(&batch, &mut done).sent_packets;
    }
    let cpu = thread_cpu().saturating_sub(before);
    (sent, start.elapsed().as_secs_f64(), cpu)
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY:
    // - `time` is writable for the length of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
