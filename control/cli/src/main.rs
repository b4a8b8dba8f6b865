//! The `patronus` binary: every verb of the operator, one definition each.

mod bench;
mod bugreport;
mod capture;
mod config;
mod console;
mod console_bench;
mod demo;
mod doctor;
mod failover_report;
mod flows;
mod gateway;
mod history;
mod keys;
mod lab_bench;
mod lab_report;
mod monitor;
mod paths;
mod peers;
mod policy;
mod prefilter;
mod prefilter_report;
mod print;
mod replay;
mod shell;
mod status;
mod trace;
mod verbs;
mod version;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// An SD-WAN gateway: encrypted tunnels between sites, on plain Linux machines.
#[derive(Debug, Parser)]
#[command(name = "patronus", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a gateway until SIGTERM or Ctrl-C; SIGHUP reloads its configuration
    Run(RunArgs),
    /// Show two or more gateways at work, in network namespaces made for it
    #[command(after_help = demo::HELP)]
    Demo(demo::DemoArgs),
    /// Run the sites of a file, with real gateways and bad uplinks, until Ctrl-C
    Lab(LabArgs),
    /// Check, compare and apply configurations, and go back to earlier ones
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Check, test, list and compare policies: Kubernetes NetworkPolicy in files
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// Say whether a connection is allowed, and by which rule of which file
    #[command(after_help = policy::EXPLAIN_HELP)]
    Explain(policy::ExplainArgs),
    /// Watch the running gateway: sites, paths, peers, flows, policy, workers, events
    #[command(after_help = console::HELP)]
    Console(console::ConsoleArgs),
    /// Tell what the running gateway is, and whether it is well
    #[command(after_help = status::HELP)]
    Status(status::StatusArgs),
    /// List the live flows: their ends, peer, path and class
    Flows(flows::FlowsArgs),
    /// List the peers: whether their tunnels are up, and what went through them
    #[command(after_help = peers::HELP)]
    Peers(peers::PeersArgs),
    /// Show the packet workers: how busy, how fast, and where their time goes
    #[command(after_help = workers::HELP)]
    Workers(workers::WorkersArgs),
    /// Print the metrics as Prometheus reads them
    Metrics(status::MetricsArgs),
    /// Tell how things went in the last day
    #[command(after_help = history::HELP)]
    History(history::HistoryArgs),
    /// Show the paths to the peers: state, delay, loss, rates, and which classes use them
    #[command(after_help = paths::PATHS_HELP)]
    Paths(paths::PathsArgs),
    /// Look at one path, pin, drain, measure or record
    #[command(subcommand)]
    Path(paths::PathVerb),
    /// Measure round trips on a path, inside the tunnel
    #[command(after_help = paths::PING_HELP)]
    Ping(paths::PingArgs),
    /// Tell what happened to paths, peers and uplinks, and why
    #[command(after_help = paths::EVENTS_HELP)]
    Events(paths::EventsArgs),
    /// Print everything that happens as JSON lines, for programs
    #[command(after_help = monitor::HELP)]
    Monitor(monitor::MonitorArgs),
    /// Show where traffic to a site or an address goes, hop by hop
    #[command(after_help = trace::HELP)]
    Trace(trace::TraceArgs),
    /// Write packets inside and outside the tunnel into a file for Wireshark
    #[command(after_help = capture::HELP)]
    Capture(capture::CaptureArgs),
    /// Find out what is wrong with this machine and its gateway, and what to do
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::DoctorArgs),
    /// Write a folder with what helps to find a fault, without keys
    #[command(after_help = bugreport::HELP)]
    Bugreport(bugreport::BugreportArgs),
    /// Tell the versions of this program and of the running gateway
    #[command(after_help = version::HELP)]
    Version(version::VersionArgs),
    /// Decide again what a gateway decided about its paths, from a recorded trace
    #[command(after_help = replay::HELP)]
    Replay(replay::ReplayArgs),
    /// Look at what is thrown away in the kernel, attach and detach it
    #[command(subcommand)]
    Prefilter(prefilter::PrefilterVerb),
    /// Turn other programs' configuration into ours
    #[command(subcommand)]
    Import(ImportVerb),
    /// Measure
    #[command(subcommand)]
    Bench(BenchVerb),
    /// Print completions for a shell
    #[command(after_help = shell::COMPLETIONS_HELP)]
    Completions(shell::CompletionsArgs),
    /// Write the manual pages into a folder
    Man(shell::ManArgs),
    /// Print a new private key
    Genkey,
    /// Read a private key from standard input and print its public key
    Pubkey,
    /// Print a new preshared key
    Genpsk,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/patronus/patronus.toml"
    )]
    config: PathBuf,
    /// Where the WireGuard control socket goes; `wg` looks in the default only
    #[arg(long, value_name = "DIR", default_value = "/var/run/wireguard")]
    uapi_dir: PathBuf,
    /// Where the local API's socket goes
    #[arg(long, value_name = "DIR", default_value = patronus_api::SOCKET_DIR)]
    api_dir: PathBuf,
    /// End when standard input ends, for a parent that must leave nothing behind
    #[arg(long)]
    exit_with_stdin: bool,
    /// Write packet counters as JSON there at the end
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct LabArgs {
    /// The lab: sites, uplinks, impairments and their schedule, in TOML
    file: PathBuf,
    /// Chance that repeats itself; before the file's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End after that many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=2_678_400))]
    seconds: Option<u64>,
    /// Print one JSON document a line and nothing else on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ImportVerb {
    /// Turn a wg-quick file into a Patronus configuration; keys go to files beside it
    WgQuick {
        /// The wg-quick file
        file: PathBuf,
        /// Directory for the configuration and the key files; it is made if it is missing
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum BenchVerb {
    /// What the cipher alone carries on one core: the limit
    Aead(bench::AeadArgs),
    /// The engine in memory, without a kernel, as a fraction of that limit
    Engine(bench::EngineArgs),
    /// Policy tables at scale: compiling, changing, judging, memory
    Policy(bench::PolicyArgs),
    /// What it costs to measure the paths to many sites
    Paths(bench::PathsArgs),
    /// What two gateways carry, at what delay and with what loss, after RFC 2544
    Throughput(lab_bench::ThroughputArgs),
    /// Handshakes per second, and what an established peer keeps during an initiation flood
    Handshakes(lab_bench::HandshakesArgs),
    /// How long traffic between two sites with two uplinks stops when something breaks
    Failover(lab_bench::FailoverArgs),
    /// What the pre-filter costs, drops and keeps for an established peer during floods
    Prefilter(lab_bench::PrefilterArgs),
    /// How soon the console shows something, and what it costs while it is open
    Console(console_bench::ConsoleArgs),
    /// The same traffic through Patronus and through other WireGuard programs, in alternating rounds
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// Programs to compare with: boringtun, gotatun, wireguard-go, nebula (nebula-aes and nebula-chacha). One that
    /// takes a socket buffer size runs at its defaults and at equal 4 MiB; NAME@default or NAME@4M picks one. Or none
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "boringtun,gotatun,wireguard-go,nebula"
    )]
    peers: Vec<String>,
    /// Where a program is, if not on PATH
    #[arg(long, value_name = "NAME=PATH")]
    peer_path: Vec<String>,
    /// Rounds; each measures every program once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Length of each measurement in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// TCP congestion control of the hosts, such as bbr or cubic; the system's if absent
    #[arg(long, value_name = "NAME")]
    congestion_control: Option<String>,
    /// Uplinks of each site: with more than one, Patronus is measured on all of them too, with a path and its probes for
    /// every pair, beside itself on one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    uplinks: u8,
    /// One short round, to prove that the tool works: not a measurement
    #[arg(long)]
    quick: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Write JSON, Markdown, a page with plots and single rounds into that directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    verbs::dispatch(cli.verb)
}
