//! A lab with a gateway at work in every site, and the measurements that `demo` and `bench compare` share.
//!
//! Rates are payload that arrived, taken over a window that starts after a warm-up; CPU is what all gateway
//! processes used in the same window. Pairs of sites (1 and 2, 3 and 4, …) carry traffic at the same time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::proc::{TcpSegments, tcp_segments};
use crate::program::GatewayConfig;
use crate::progress::Progress;
use crate::stop::Stop;
use crate::traffic::{BulkTcp, PingResult, Pinger, UdpBlast, UdpResult, reach};
use crate::{Family, Gateway, GatewayReport, Lab, Program, Site, nebula};

/// Sites whose gateways are up.
#[derive(Debug)]
pub struct Mesh {
    /// The gateways, in order of their sites; first, so that they end before their namespaces go.
    pub gateways: Vec<Gateway>,
    /// The sites and the WAN.
    pub lab: Lab,
}

/// Which site of each pair sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The one with the odd number.
    Forward,
    /// The one with the even number.
    Reverse,
}

/// How long a measurement lasts, whom it tells, and what can stop it.
#[derive(Clone, Copy, Debug)]
pub struct Conduct<'a> {
    /// Length of the measured window.
    pub window: Duration,
    /// Traffic before the window, for congestion control to settle.
    pub warm_up: Duration,
    /// Where progress goes.
    pub progress: &'a Progress,
    /// The operator's Ctrl-C.
    pub stop: &'a Stop,
}

/// Bulk TCP over a window.
#[derive(Clone, Debug)]
pub struct TcpMeasured {
    /// Payload bytes that arrived.
    pub bytes: u64,
    /// Length of the window in seconds.
    pub seconds: f64,
    /// CPU seconds of all gateways.
    pub cpu_seconds: f64,
    /// What the sending hosts' TCP did, warm-up included.
    pub segments: TcpSegments,
    /// Round trips beside the load, over all pairs.
    pub ping: PingResult,
}

/// UDP at full rate over a window.
#[derive(Clone, Copy, Debug)]
pub struct UdpMeasured {
    /// Datagrams that arrived in the window.
    pub datagrams: u64,
    /// Their payload in bytes.
    pub bytes: u64,
    /// Length of the window in seconds.
    pub seconds: f64,
    /// Whole run, warm-up included.
    pub total: UdpResult,
}

/// Percentiles of round trips in µs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rtt {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
}

impl Mesh {
    /// Builds the lab and starts one gateway per site, all of the same program.
    ///
    /// # Errors
    /// What the lab or a gateway refused.
    pub fn up(sites: usize, program: &Program, outer: Family, stop: &Stop) -> Result<Self> {
        Self::up_with(sites, program, outer, stop, |_| {})
    }

    /// As [`Mesh::up`], after `adjust` has seen each site's configuration.
    ///
    /// # Errors
    /// As for [`Mesh::up`].
    pub fn up_with(
        sites: usize,
        program: &Program,
        outer: Family,
        stop: &Stop,
        adjust: impl Fn(&mut GatewayConfig),
    ) -> Result<Self> {
        Self::on(Lab::build(sites)?, program, outer, stop, adjust)
    }

    /// Starts the gateways of a lab that is there, after `adjust` has seen each site's configuration.
    ///
    /// # Errors
    /// As for [`Mesh::up`].
    pub fn on(
        lab: Lab,
        program: &Program,
        outer: Family,
        stop: &Stop,
        adjust: impl Fn(&mut GatewayConfig),
    ) -> Result<Self> {
        let configs = lab.sites.iter().map(|site| lab.gateway_config(site, outer));
        let configs = configs.collect();
        Self::start(lab, configs, program, stop, adjust)
    }

    /// As [`Mesh::on`], for a program that uses all uplinks that the sites have.
    ///
    /// # Errors
    /// As for [`Mesh::up`].
    pub fn over_uplinks(
        lab: Lab,
        program: &Program,
        outer: Family,
        stop: &Stop,
        adjust: impl Fn(&mut GatewayConfig),
    ) -> Result<Self> {
        let sites = lab.sites.iter();
        let configs = sites.map(|site| lab.multipath_config(site, outer));
        let configs = configs.collect();
        Self::start(lab, configs, program, stop, adjust)
    }

    fn start(
        lab: Lab,
        mut configs: Vec<GatewayConfig>,
        program: &Program,
        stop: &Stop,
        adjust: impl Fn(&mut GatewayConfig),
    ) -> Result<Self> {
        if let Program::Nebula { binary, .. } = program {
            nebula::issue(binary, &lab, &mut configs)?;
        }
        let mut gateways = Vec::with_capacity(lab.sites.len());
        for (site, mut config) in lab.sites.iter().zip(configs) {
            stop.check()?;
            adjust(&mut config);
            gateways.push(Gateway::start(&site.gateway, program, &config)?);
        }
        Ok(Self { gateways, lab })
    }

    /// Every host reaches every other over every family that the program carries; the number of ways tried.
    ///
    /// # Errors
    /// The first way without a reply within thirty seconds.
    pub fn check_reach(&self, stop: &Stop) -> Result<usize> {
        let mut ways = 0;
        let families = self
            .gateways
            .first()
            .map_or(&[][..], |gateway| gateway.program().families());
        for from in &self.lab.sites {
            for to in self.lab.sites.iter().filter(|to| to.number != from.number) {
                for &family in families {
                    stop.check()?;
                    reach(&from.host, to.host_addr(family), REACH_MAX)?;
                    ways += 1;
                }
            }
        }
        Ok(ways)
    }

    /// The pairs of sites that exchange traffic; an odd last site has no partner.
    pub fn pairs(&self, direction: Direction) -> impl Iterator<Item = (&Site, &Site)> {
        self.lab
            .sites
            .chunks_exact(2)
            .map(move |pair| match direction {
                Direction::Forward => (&pair[0], &pair[1]),
                Direction::Reverse => (&pair[1], &pair[0]),
            })
    }

    /// Round trips with nothing else going on.
    ///
    /// # Errors
    /// A socket that failed, no reply at all, or Ctrl-C.
    pub fn idle_rtt(&self, conduct: Conduct<'_>) -> Result<PingResult> {
        let pingers = self.start_pingers(IDLE_PING_INTERVAL)?;
        conduct.watch("idle round trip", conduct.window, String::new)?;
        let result = finish_pingers(pingers)?;
        ensure!(
            result.received > 0,
            "no reply to {} echo requests on an idle path",
            result.sent
        );
        Ok(result)
    }

    /// Bulk TCP over IPv4, `flows` flows per pair, with a ping beside it.
    ///
    /// # Errors
    /// A flow that broke or carried nothing, or Ctrl-C.
    pub fn tcp(
        &self,
        direction: Direction,
        flows: usize,
        conduct: Conduct<'_>,
    ) -> Result<TcpMeasured> {
        let name = match direction {
            Direction::Forward => format!("TCP, {flows} flow(s) a pair, with ping"),
            Direction::Reverse => format!("TCP reverse, {flows} flow(s) a pair, with ping"),
        };
        let segments = self.tcp_segments()?;
        let bulks = self
            .pairs(direction)
            .map(|(from, to)| BulkTcp::start(&from.host, &to.host, to.host_addr(Family::V4), flows))
            .collect::<Result<Vec<_>>>()?;
        let received = || bulks.iter().map(BulkTcp::received_bytes).sum::<u64>();
        conduct.warm_up(&name)?;

        let pingers = self.start_pingers(LOADED_PING_INTERVAL)?;
        let (cpu, bytes, begun) = (self.cpu_seconds()?, received(), Instant::now());
        conduct.watch(&name, conduct.window, || {
            gbps_text(received() - bytes, begun.elapsed().as_secs_f64())
        })?;
        conduct.await_first(&name, || received() > bytes)?;
        let bytes = received() - bytes;
        let seconds = begun.elapsed().as_secs_f64();
        let cpu_seconds = self.cpu_seconds()? - cpu;
        // Before the flows end: a reply that comes late came under load.
        let ping = finish_pingers(pingers)?;
        for bulk in bulks {
            bulk.finish().with_context(|| format!("during {name}"))?;
        }
        ensure!(bytes > 0, "{name}: no byte arrived in {seconds:.1} s");
        let segments = self.tcp_segments()?.since(segments);
        Ok(TcpMeasured {
            bytes,
            seconds,
            cpu_seconds,
            segments,
            ping,
        })
    }

    /// UDP over IPv4 at full rate, one sender per pair, forward.
    ///
    /// # Errors
    /// A socket that failed, nothing that arrived, or Ctrl-C.
    pub fn udp(&self, payload_bytes: usize, conduct: Conduct<'_>) -> Result<UdpMeasured> {
        let name = format!("UDP, {payload_bytes} B, at full rate");
        let blasts = self
            .pairs(Direction::Forward)
            .map(|(from, to)| {
                UdpBlast::start(
                    &from.host,
                    &to.host,
                    to.host_addr(Family::V4),
                    payload_bytes,
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let received = || blasts.iter().map(UdpBlast::received).sum::<u64>();
        conduct.warm_up(&name)?;

        let (before, begun) = (received(), Instant::now());
        conduct.watch(&name, conduct.window, || {
            let datagrams = received() - before;
            gbps_text(
                datagrams * payload_bytes as u64,
                begun.elapsed().as_secs_f64(),
            )
        })?;
        conduct.await_first(&name, || received() > before)?;
        let datagrams = received() - before;
        let seconds = begun.elapsed().as_secs_f64();
        let mut total = UdpResult {
            sent: 0,
            received: 0,
            late: 0,
        };
        for blast in blasts {
            let result = blast.finish().with_context(|| format!("during {name}"))?;
            total.sent += result.sent;
            total.received += result.received;
            total.late += result.late;
        }
        ensure!(
            datagrams > 0,
            "{name}: no datagram arrived in {seconds:.1} s, {total:?}"
        );
        Ok(UdpMeasured {
            datagrams,
            bytes: datagrams * payload_bytes as u64,
            seconds,
            total,
        })
    }

    /// The largest resident set among the gateways, in bytes.
    ///
    /// # Errors
    /// When a gateway is gone.
    pub fn rss_max_bytes(&self) -> Result<u64> {
        let mut max = 0;
        for gateway in &self.gateways {
            max = max.max(gateway.rss_max_bytes()?);
        }
        Ok(max)
    }

    /// Ends all gateways in an orderly way; their reports, where the program writes them.
    ///
    /// # Errors
    /// The first gateway that did not end well; all are ended either way.
    pub fn down(self) -> Result<Vec<GatewayReport>> {
        let ends: Vec<_> = self.gateways.into_iter().map(Gateway::stop).collect();
        let mut reports = Vec::new();
        for end in ends {
            reports.extend(end?);
        }
        Ok(reports)
    }

    /// CPU seconds that all gateways have used so far.
    ///
    /// # Errors
    /// When a gateway is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.gateways.iter().map(Gateway::cpu_seconds).sum()
    }

    fn tcp_segments(&self) -> Result<TcpSegments> {
        let mut sum = TcpSegments::default();
        for site in &self.lab.sites {
            sum = sum.plus(tcp_segments(&site.host)?);
        }
        Ok(sum)
    }

    fn start_pingers(&self, interval: Duration) -> Result<Vec<Pinger>> {
        self.pairs(Direction::Forward)
            .map(|(from, to)| Pinger::start(&from.host, to.host_addr(Family::V4), interval))
            .collect()
    }
}

impl TcpMeasured {
    /// Payload rate.
    pub fn gbps(&self) -> f64 {
        gbps(self.bytes, self.seconds)
    }

    /// CPU seconds of all gateways per Gbit of payload.
    pub fn cpu_s_per_gbit(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 * 8e-9)
    }
}

impl UdpMeasured {
    /// Payload rate.
    pub fn gbps(&self) -> f64 {
        gbps(self.bytes, self.seconds)
    }

    /// Thousands of datagrams per second.
    pub fn kpps(&self) -> f64 {
        self.datagrams as f64 / self.seconds / 1e3
    }
}

impl Rtt {
    /// Percentiles of a series.
    ///
    /// # Errors
    /// A series without a single reply: it has no percentiles.
    pub fn of(ping: &PingResult) -> Result<Self> {
        ensure!(ping.received > 0, "no reply to {} echo requests", ping.sent);
        let rtt = &ping.rtt_us;
        Ok(Self {
            p50: rtt.value_at_quantile(0.5),
            p99: rtt.value_at_quantile(0.99),
            max: rtt.max(),
            mean: rtt.mean(),
        })
    }
}

impl Conduct<'_> {
    fn warm_up(&self, name: &str) -> Result<()> {
        self.watch(name, self.warm_up, || "warming up".to_owned())
    }

    /// Goes on beyond the window while nothing at all has arrived: a busy machine may keep everybody from his work for longer
    /// than a short window. Rates count the time that passed, so a pause shows.
    fn await_first(&self, name: &str, has_come: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !has_come() && begun.elapsed() < SILENCE_MAX {
            self.watch(name, SHOW_INTERVAL, || "nothing yet".to_owned())?;
        }
        Ok(())
    }

    /// Sleeps in steps and shows how it goes.
    pub(crate) fn watch(
        &self,
        name: &str,
        length: Duration,
        mut show: impl FnMut() -> String,
    ) -> Result<()> {
        let end = Instant::now() + length;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.stop.sleep(left.min(SHOW_INTERVAL))?;
            self.progress.live(&format!("{name}  {}", show()));
        }
    }
}

fn finish_pingers(pingers: Vec<Pinger>) -> Result<PingResult> {
    let mut sum = PingResult::new();
    for pinger in pingers {
        sum.add(&pinger.finish()?);
    }
    Ok(sum)
}

fn gbps(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 * 8e-9 / seconds
}

fn gbps_text(bytes: u64, seconds: f64) -> String {
    format!("{:.2} Gbit/s", gbps(bytes, seconds))
}

/// Payload of the large UDP datagrams: 1400 bytes with IPv4 and UDP headers, inside 1420.
pub const UDP_PAYLOAD_BYTES: usize = 1372;
/// Payload of the small ones.
pub const SMALL_PAYLOAD_BYTES: usize = 16;
const IDLE_PING_INTERVAL: Duration = Duration::from_millis(10);
const LOADED_PING_INTERVAL: Duration = Duration::from_millis(5);
/// A handshake that finds nobody, or whose packets a busy machine loses, is tried again every five seconds
/// (REKEY_TIMEOUT) and a little.
const REACH_MAX: Duration = Duration::from_secs(30);
/// How long traffic may be silent behind the window.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const SHOW_INTERVAL: Duration = Duration::from_millis(250);
